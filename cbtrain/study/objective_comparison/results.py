"""What a comparison of objectives has come to: a row for each arm, the planned contrasts, and an answer in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from cbtrain import __version__
from cbtrain.eval.analysis.contrasts import Contrast
from cbtrain.files import seal, write_atomic
from cbtrain.study.method_comparison.plan_files import measured
from cbtrain.study.method_comparison.results import Spread
from cbtrain.study.objective_comparison.arms import KINDS, UNTUNED
from cbtrain.study.objective_comparison.candidates import Comparison
from cbtrain.study.objective_comparison.evaluation import ArmScore
from cbtrain.study.objective_comparison.measure import Preferences
from cbtrain.study.objective_comparison.run import RunPlan, of_arm, trained_summary

SCHEMA = "cbtrain.objectives/1"

RESULTS = "objectives.json"


@dataclass(frozen=True, slots=True)
class Search:
    """What chose the learning rate of an arm: of each rate tried the loss on the validation part, and of arms that
    compare answers the share of its pairs ranked rightly by their own margin."""

    rate: float
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm. ``tokens`` and ``passes`` are means over ``seeds``. ``pairs``: by part, over seeds, what
    :class:`~.measure.Preferences` says, ``ranked``, ``moved``, ``chosen`` and ``rejected``. ``forgotten``: by text,
    mean KL(base ‖ tuned) in nats a token and rise of perplexity as a share. ``failed`` says why there is no more."""

    name: str
    about: str
    rate: float | None = None
    at_edge: bool = False
    search: list[Search] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    tokens: float = 0.0
    passes: float = 0.0
    unmoved: int = 0
    pairs: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)
    forgotten: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    score: ArmScore | None = None
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """``counts``: pairs by part; ``judges``: who rated; ``limits``: what this comparison cannot say."""

    arms: list[ArmResult]
    contrasts: list[Contrast]
    counts: Mapping[str, int]
    judges: list[str]
    answer: list[str]
    limits: list[str]


def arm_results(
    comparison: Comparison,
    search: Sequence[RunPlan],
    finals: Sequence[RunPlan],
    runs: Path,
    failed: Mapping[str, str],
    scores: Mapping[str, ArmScore],
) -> list[ArmResult]:
    """Return what is known of each arm, whose runs lie in the folder ``runs``; ``failed`` says by run what was
    wrong."""
    results = []
    base = measured(runs, comparison.of_base())
    for name in comparison.file.arms:
        score, about = scores.get(name), KINDS[name].about
        if not KINDS[name].tuned:
            pairs = _spreads([base], None) if base and name == UNTUNED else {}
            results.append(ArmResult(name, about, pairs=pairs, score=score))
            continue
        tried = [found for plan in of_arm(search, name) if (found := _search(plan, runs))]
        problem = next((text for run, text in failed.items() if run.startswith(f"{name}_rate-")), "")
        done = [(p, s) for p in of_arm(finals, name) if (s := trained_summary(runs, p)) and measured(runs, p)]
        if not done:
            results.append(ArmResult(name, about, search=tried, failed=problem or "it has not ended"))
            continue
        summaries, rates = [summary for _, summary in done], comparison.file.rates(name)
        rate = done[0][0].rate
        results.append(
            ArmResult(
                name,
                about,
                rate=rate,
                at_edge=len(rates) > 1 and rate in (rates[0], rates[-1]),
                search=tried,
                seeds=[plan.seed for plan, _ in done],
                tokens=fmean(summary["tokens"] for summary in summaries),
                passes=fmean(summary["tokens"] / comparison.pass_tokens[name] for summary in summaries),
                unmoved=sum(summary["best_step"] == 0 for summary in summaries),
                pairs=_spreads([measured(runs, plan) or {} for plan, _ in done], base),
                forgotten=_forgotten(summaries),
                score=score,
                failed=problem,
            )
        )
    return results


def _search(plan: RunPlan, runs: Path) -> Search | None:
    summary = trained_summary(runs, plan)
    if summary is None:
        return None
    return Search(plan.rate, summary["validation_best"], (summary.get("pairs") or {}).get("accuracy"))


def _spreads(found: Sequence[Mapping[str, Any]], base: Mapping[str, Any] | None) -> dict[str, dict[str, Spread]]:
    """Return what models say of the pairs, by part, over the models."""
    parts = [part for part in ("validation", "test") if all(part in one for one in found)]
    spreads = dict[str, dict[str, Spread]]()
    for part in parts:
        each = [Preferences.of(one[part], base[part] if base else None) for one in found]
        names = ("ranked", "moved", "chosen", "rejected") if base else ("ranked", "chosen", "rejected")
        spreads[part] = {name: Spread.of(getattr(one, name) for one in each) for name in names}
    return spreads


def _forgotten(summaries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return what was measured of each text in every run."""
    texts = [text["text"] for text in summaries[0]["forgetting"] if text["kl"] is not None]
    found = {}
    for name in texts:
        rows = [text for summary in summaries for text in summary["forgetting"] if text["text"] == name]
        if all(row["kl"] is not None and row["rise"] is not None for row in rows):
            found[name] = {key: fmean(row[key] for row in rows) for key in ("kl", "rise")}
    return found


def write_results(results: Results, comparison: Comparison, folder: Path) -> None:
    """Write ``objectives.json`` to ``folder``."""
    content = {
        "schema": SCHEMA,
        "cbtrain": __version__,
        "comparison": comparison.file.model_dump(mode="json"),
        "base": comparison.fingerprint,
        "data": comparison.parts.digest,
        "pairs": dict(results.counts),
        "pass_tokens": dict(comparison.pass_tokens),
        "judges": results.judges,
        "arms": [asdict(one) for one in results.arms],
        "contrasts": [asdict(one) for one in results.contrasts],
        "answer": results.answer,
        "limits": results.limits,
    }
    write_atomic(folder / RESULTS, json.dumps(seal(content), indent=2) + "\n")
