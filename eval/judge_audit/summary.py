"""What an audit says of a judge: one verdict and one sentence for each kind of test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cbtrain.eval.judge_audit.findings import NOT_EXPECTED, VERDICTS, together
from cbtrain.eval.judge_audit.impressions import STUDY_R
from cbtrain.eval.judge_audit.probes import KINDS, OTHERS, TOTAL

NOT_TESTED = "not tested"

Entry = Mapping[str, Any]


def summary(entries: Sequence[Entry], untested: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return kind, name, verdict and text of each kind of test. ``untested``: why a kind was left out."""
    lines = []
    for kind, name in KINDS.items():
        own = [entry for entry in entries if entry["kind"] == kind]
        tested = [entry for entry in own if entry["copies"]]
        if not tested:
            why = untested.get(kind) or "; ".join(filter(None, map(why_no_copies, own))) or "no copies"
            lines.append({"kind": kind, "name": name, "verdict": NOT_TESTED, "text": why})
            continue
        # Other domains that fall with the one that was removed are halo, and told there.
        verdict = together(finding["verdict"] for _, finding in _each(tested) if finding["measure"] != OTHERS)
        lines.append({"kind": kind, "name": name, "verdict": verdict, "text": _text(kind, tested)})
    return lines


def why_no_copies(entry: Entry) -> str:
    """Return in words why a probe has fewer copies than sessions; an empty text if it has all."""
    if not entry.get("nothing_to_change"):
        return ""
    none, all_ = entry["nothing_to_change"], entry["nothing_to_change"] + entry["copies"]
    return f"{entry['text']}: nothing to change, or no words to do it with, in {none} of {all_} sessions"


def _text(kind: str, entries: Sequence[Entry]) -> str:
    found = {(entry["probe"], finding["measure"]): finding for entry in entries for finding in entry["findings"]}
    if kind == "repeat":
        moved, sd = found["repeat", TOTAL], found["repeat", "SD of a rating"]
        return f"SD of a rating of one session: {_points(sd['value'])}; asked again: {_signed(moved)} points"
    if kind == "order":
        first = found["order", "listed first"]
        return (
            f"a domain gets {_signed(first)} points when it is listed first; the total {_signed(found['order', TOTAL])}"
        )
    if kind == "length":
        parts = [
            f"{entry['text']}: {_signed(finding)} points{_per_words(finding)}" for entry, finding in _each(entries)
        ]
        return "; ".join(parts)
    if kind == "halo":
        r, number = found["halo", "mean r of domains"], found["halo", "share with one number"]
        moved = found["halo", "others, one removed"]
        known = "" if moved["shift"] is None else f"; other domains moved {_signed(moved)} where one thing was left out"
        correlation = "cannot be computed" if r["value"] is None else f"{r['value']:.2f}".replace("-", "−")
        share = "" if number["value"] is None else f"; one number in all domains in {100 * number['value']:.0f} %"
        return f"mean correlation of domains {correlation} (2024 study's judge {STUDY_R:.3f}){share}{known}"
    if kind == "generosity":
        originals, ruined = (found["generosity", f"mean domain, {which}"] for which in ("originals", "ruined"))
        top = next((entry["share_at_the_top"] for entry in entries), None)
        share = "" if top is None else f"; {100 * top:.0f} % of the originals' scores are the highest"
        return f"mean domain {_points(originals['value'])}, of ruined sessions {_points(ruined['value'])}{share}"
    if kind == "nothing":
        rated = sum(entry["statuses"].get("ok", 0) for entry in entries)
        return f"{rated} of {sum(sum(entry['statuses'].values()) for entry in entries)} ratings of nothing have scores"
    if kind == "blind":
        return "; ".join(
            f"renamed sessions: {finding['sessions']}; {finding['measure']} "
            + ("differ" if finding["verdict"] == NOT_EXPECTED else "are the same")
            for _, finding in _each(entries)
        )
    return _list(entries)


def _list(entries: Sequence[Entry]) -> str:
    """Return which findings have which verdict."""
    parts = []
    for verdict in VERDICTS:
        names = [
            f"{entry['probe']} ({finding['measure'].replace('_', ' ')} {_signed(finding)})"
            for entry, finding in _each(entries)
            if finding["verdict"] == verdict and finding["measure"] != OTHERS
        ]
        parts += [f"{verdict}: {', '.join(names)}"] if names else []
    return "; ".join(parts)


def _each(entries: Sequence[Entry]) -> list[tuple[Entry, Any]]:
    return [(entry, finding) for entry in entries for finding in entry["findings"]]


def _signed(finding: Any) -> str:
    return "n/a" if finding["shift"] is None else f"{finding['shift']:+.2f}".replace("-", "−")


def _points(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


def _per_words(finding: Any) -> str:
    rate = finding["per_100_words"]
    return "" if rate is None else f" ({rate:+.2f} for 100 more words)".replace("-", "−")
