"""Measure how long a report of 600 sessions takes to open: ``python launch/benchmark.py report``.

The page is opened from disk in headless Chromium, in a new browser each time. Times are the page's own clock, from the
start of its navigation; the list is *ready* at the end of the first frame that shows it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.report.schema.report import Report
from cbtrain.eval.report.write import write_report

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARMS = ("base", "tuned")
DOMAINS = 11
WORDS = (
    "I have been putting everything off again the dishes letters even calling my sister back and then you said what "
    "went through your mind before it how strongly did believe that from zero to hundred let us stay with thought"
).split()

READY = """
const look = () => requestAnimationFrame(() => {
  if (!document.querySelector("#browser:not([hidden]) #session-list button")) return look();
  setTimeout(() => { window.ready = performance.now(); });
});
look();
"""
CLICK = """
() => new Promise((resolve) => {
  const start = performance.now();
  document.querySelectorAll("#session-list button")[1].click();
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
})
"""


def made_up_report(sessions: int, turns: int, repeats: int) -> dict[str, Any]:
    """Return a report of ``sessions`` dialogues of ``turns`` turns with ``repeats`` ratings each, always the same."""
    draw = random.Random(1)
    domains = [f"domain_{index}" for index in range(DOMAINS)]
    seeds = max(sessions // (len(ARMS) * 50), 1)
    return {
        "rater": {"judge": "made up", "kind": "llm", "label": "Nobody: made-up scores"},
        "scale": {
            "min": 0,
            "max": 6,
            "total_max": 6 * DOMAINS,
            "cutoff": 40,
            "domains": [{"id": domain, "name": domain} for domain in domains],
        },
        "arms": [{"name": arm, "label": arm} for arm in ARMS],
        "sessions": [
            {
                "id": f"s{index}",
                "arm": ARMS[index % 2],
                "patient": f"p{index // (2 * seeds)}",
                "seed": index // 2 % seeds,
                **_scored_dialogue(turns, repeats, domains, draw),
            }
            for index in range(sessions)
        ],
    }


def _scored_dialogue(turns: int, repeats: int, domains: list[str], draw: random.Random) -> dict[str, Any]:
    ratings = [
        {
            "judge": "made up",
            "repeat": repeat,
            "status": "ok",
            "total": 33.0,
            "domains": {domain: draw.randint(0, 6) for domain in domains},
            "evidence": {domain: sorted(draw.sample(range(turns), min(3, turns))) for domain in domains},
            "reason": {domain: _words(25, draw) for domain in domains},
        }
        for repeat in range(repeats)
    ]
    return {
        "ending": draw.choice(["patient_end", "max_turns"]),
        "turns": [{"role": ("patient", "therapist")[i % 2], "text": _words(60, draw)} for i in range(turns)],
        "total": draw.uniform(10, 60),
        "domains": {domain: draw.uniform(0, 6) for domain in domains},
        "status": "ok",
        "flags": ["stopped_by_limit"] if draw.random() < 0.5 else [],
        "ratings": ratings,
    }


def _words(count: int, draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=count))


def open_times(page: Path, rounds: int) -> list[dict[str, float]]:
    """Return the milliseconds of every round: ``parsed``, ``ready``, ``other`` (to show another session)."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise UserError("playwright is not installed", where="report", hint="pip install playwright") from None
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        raise UserError("no Chromium on the PATH", where="report", hint="Install chromium.")
    times = []
    with sync_playwright() as playwright:
        for _ in range(rounds):
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.add_init_script(READY)
            tab.goto(page.as_uri())
            tab.wait_for_function("window.ready")
            entry = "performance.getEntriesByType('navigation')[0]"
            parsed, ready = tab.evaluate(f"[{entry}.domInteractive, window.ready]")
            times.append({"parsed": parsed, "ready": ready, "other": tab.evaluate(CLICK)})
            browser.close()
    return times


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py report", description=__doc__)
    parser.add_argument("--sessions", type=int, default=600)
    parser.add_argument("--turns", type=int, default=40, help="turns of a session (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="ratings of a session (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = Report.model_validate(made_up_report(options.sessions, options.turns, options.repeats))
        started = time.perf_counter()
        page = write_report(report, folder)
        seconds = time.perf_counter() - started
        print(f"{options.sessions} sessions of {options.turns} turns, {options.repeats} ratings each")
        print(f"written in {seconds:.1f} s, report.html {page.stat().st_size / 1e6:.1f} MB")
        times = open_times(page, options.rounds)
    for name, what in (("parsed", "page parsed"), ("ready", "list ready"), ("other", "another session shown")):
        values = sorted(round_[name] for round_ in times)
        print(f"{what:<22} {median(values):6.0f} ms  ({values[0]:.0f} to {values[-1]:.0f}, {len(values)} rounds)")
