"""How long a whole analysis of 600 sessions takes: ``python launch/benchmark.py analysis``.

Six arms (three bases, tuned and not), twenty patients, five sessions of each with each arm, 10,000 bootstrap draws;
once with a rating each, once rated three times by two judges. Beside them the bootstrap of one contrast, ours and as a
loop.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import numpy as np

from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.ratings import Arm, Ratings, Scale
from cbtrain.eval.analysis.resampling import hierarchical_bootstrap
from cbtrain.eval.analysis.sessions import Key, SessionOutcome

ITEMS = 11


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py analysis", description=__doc__)
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=5, help="of each patient with each arm")
    parser.add_argument("--draws", type=int, default=10_000)
    parsed = parser.parse_args(arguments)
    first, first_outcomes = made_up(3, 2, 1, 1)
    _seconds(lambda: analysis(first, "default", first_outcomes, draws=100))  # what is imported and compiled once
    for judges, repeats in ((1, 1), (2, 3)):
        ratings, outcomes = made_up(parsed.patients, parsed.sessions, judges, repeats)
        seconds = _seconds(partial(analysis, ratings, "default", outcomes, draws=parsed.draws))
        print(f"{len(outcomes):,} sessions, {len(ratings):,} ratings, {parsed.draws:,} draws: {seconds:.2f} s")
    groups = [np.random.default_rng(patient).normal(size=parsed.sessions) for patient in range(parsed.patients)]
    ours = _seconds(lambda: hierarchical_bootstrap(groups, parsed.draws))
    loop = _seconds(lambda: _by_loop(groups, parsed.draws))
    print(f"bootstrap of one contrast: {ours * 1000:.0f} ms, as a loop {loop * 1000:.0f} ms: {loop / ours:.0f} times")


def made_up(patients: int, sessions: int, judges: int, repeats: int) -> tuple[Ratings, dict[Key, SessionOutcome]]:
    """Ratings from 0 to 6, and what became of the sessions; the same every time."""
    draw = np.random.default_rng(1)
    names = [(base, variant) for base in ("llama", "mistral", "qwen") for variant in ("tuned", "instruct")]
    arms = {f"{base}-{variant}": Arm(f"{base}-{variant}", base, variant) for base, variant in names}
    keys = list(product(arms, [f"p{index}" for index in range(patients)], range(sessions)))
    outcomes = {key: SessionOutcome(int(draw.integers(2, 40)), 500, "patient_end", False) for key in keys}
    rows = [(*key, f"judge {judge}", repeat) for key in keys for judge in range(judges) for repeat in range(repeats)]
    arm, patient, session, judge, repeat = (np.array(column) for column in zip(*rows, strict=True))
    scores = np.clip(np.round(draw.normal(3.3, 1.2, (len(rows), ITEMS))), 0, 6)
    items = tuple(f"item {index}" for index in range(ITEMS))
    status = np.full(len(rows), "ok")
    ratings = Ratings(
        item_names=items,
        arms=arms,
        arm=arm,
        patient=patient,
        session=session,
        number=np.zeros(len(rows), dtype=np.int64),
        simulator=np.full(len(rows), ""),
        judge=judge,
        repeat=repeat,
        status=status,
        items=scores,
        scale=Scale(0, 6, 40),
    )
    return ratings, outcomes


def _by_loop(groups: Sequence[np.ndarray], draws: int) -> list[float]:
    rng = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        chosen = [groups[index] for index in rng.integers(len(groups), size=len(groups))]
        means.append(float(np.mean([rng.choice(group, len(group)).mean() for group in chosen])))
    return means


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
