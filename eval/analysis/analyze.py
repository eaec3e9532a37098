"""The whole analysis of a table of ratings, under its keys in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

import cbtrain
from cbtrain.eval.analysis.agreement.panel import Panel, by_panel, left_out, panel_of, panel_ratings
from cbtrain.eval.analysis.agreement.reliability import reliability
from cbtrain.eval.analysis.arm_order import in_arm_order
from cbtrain.eval.analysis.contrast_plan import BY_ITEM, Plan, describe_arms_found, plan_contrasts
from cbtrain.eval.analysis.contrasts import compare, with_holm
from cbtrain.eval.analysis.descriptives import levels, session_groups
from cbtrain.eval.analysis.missingness import bounds, completion
from cbtrain.eval.analysis.mixed_models.contrast_model import mixed_model
from cbtrain.eval.analysis.mixed_models.interaction import interaction
from cbtrain.eval.analysis.mixed_models.tahir2024 import PaperAnalysis, analyze_as_published
from cbtrain.eval.analysis.plain_values import SCHEMA, plain
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.session_length import length_analysis
from cbtrain.eval.analysis.sessions import Key, SessionOutcome
from cbtrain.eval.analysis.subgroups import subgroups
from cbtrain.eval.analysis.trend import by_phase, trend
from cbtrain.eval.rating.csv_table import nearly_equal


def analysis(
    ratings: Ratings,
    protocol: str,
    outcomes: Mapping[Key, SessionOutcome] | None = None,
    *,
    primary_judges: Sequence[str] = (),
    rotating: bool = False,
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the analysis of ``ratings`` under its keys in JSON (schema ``cbtrain.analysis/1``); NaN becomes None.

    ``protocol``: ``default``, or ``tahir2024`` for that study's. ``outcomes``: of the sessions, rated or not, if known.
    ``primary_judges``, ``rotating``: see :func:`cbtrain.eval.analysis.agreement.panel.panel_of`. ``draws`` and
    ``seed``: of the bootstrap. Raises DoesNotFit if the protocol ``tahir2024`` does not apply to the table.
    """
    results = {
        "schema": SCHEMA,
        "protocol": protocol,
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "ratings": len(ratings),
        "patients": len(set(ratings.patient)),
        "judges": ratings.judges,
        "scale": _scale(ratings),
        "ratings_without_total": _without_total(ratings),
        "arms": [asdict(arm) for arm in ratings.arms.values()],
        "arms_found": describe_arms_found(ratings.arms),
    }
    if protocol == "tahir2024":
        results |= _published(analyze_as_published(ratings))
    else:
        panel = panel_of(ratings, primary_judges, rotating=rotating)
        results |= _default(ratings, outcomes or {}, panel, draws, seed)
    return in_arm_order(plain(results))


def _default(
    all_ratings: Ratings, outcomes: Mapping[Key, SessionOutcome], panel: Panel, draws: int, seed: int
) -> dict[str, Any]:
    """Return the analysis by the default protocol under its keys in JSON."""
    ratings = panel_ratings(all_ratings, panel)
    with_partial = by_panel(all_ratings, panel)
    plans = plan_contrasts(ratings.arms)
    total = compare(ratings, plans, ratings.total, draws, seed)
    length = length_analysis(ratings, outcomes, plans, draws, seed, with_partial=with_partial)
    interaction_test, model = interaction(ratings, plans), mixed_model(ratings, plans)
    by_level, slopes = subgroups(ratings, plans, seed), trend(ratings, plans)
    worst_cases = bounds(ratings, outcomes, plans, total, with_partial=with_partial, pooled=panel.pooled)
    return {
        "unit": "patient",
        "panel": _panel(panel),
        "notes": _notes(all_ratings, ratings, panel, outcomes),
        "bootstrap": {"draws": draws, "seed": seed, "levels": "patients, then their sessions"},
        "plan": [asdict(plan) for plan in plans],
        "groups": [asdict(group) for group in session_groups(ratings)],
        "contrasts": [asdict(contrast) for contrast in total],
        "mixed_models": [asdict(contrast) for contrast in model.contrasts],
        "variances": asdict(model.components) if model.components else None,
        "interaction": asdict(interaction_test) if interaction_test else None,
        "items": _items(ratings, plans, seed),
        "subscales": _subscales(ratings, plans, seed),
        "levels": [asdict(level) for level in levels(ratings, draws, seed, pooled=panel.pooled)],
        "length": asdict(length) if length else None,
        "subgroups": asdict(by_level) if by_level else None,
        "by_phase": [asdict(row) for row in by_phase(ratings)],
        "trend": asdict(slopes) if slopes else None,
        "completion": asdict(completion(with_partial, outcomes, plans)),
        "bounds": [asdict(bound) for bound in worst_cases],
        "agreement": reliability(all_ratings, plans, draws, seed),
    }


def _panel(panel: Panel) -> dict[str, Any]:
    """Return the panel under its keys in JSON, where the secondary judges have the key ``beside``."""
    return {
        "judges": panel.judges,
        "beside": panel.secondary,
        "pooled": panel.pooled,
        "linked": panel.linked,
        "rotating": panel.rotating,
    }


def _notes(all_ratings: Ratings, ratings: Ratings, panel: Panel, outcomes: Mapping[Key, SessionOutcome]) -> list[str]:
    """Return notes for the reader on the table, its judges, and what cannot be computed."""
    notes = [*all_ratings.notes, *_near_names(all_ratings, outcomes)]
    notes += [note for note in (panel.note, panel.short_note, left_out(all_ratings, panel)) if note]
    if len(ratings.arms) < 2:
        notes.append("one arm only: there is nothing to compare")
    if ratings.scale is None:
        notes.append(
            "the instrument of these scores is not known: no cut-off, no bounds, no check of the scores' range"
        )
    return notes


def _near_names(ratings: Ratings, outcomes: Mapping[Key, SessionOutcome]) -> list[str]:
    """Return notes on names, in the table or the transcripts, that are nearly equal: they often mean the same."""
    names_of = {
        "arms": {*ratings.arms, *(arm for arm, _, _ in outcomes)},
        "patients": {*map(str, ratings.patient), *(patient for _, patient, _ in outcomes)},
        "judges": {*ratings.judges},
    }
    return [
        f"{kind} {' and '.join(map(repr, group))} differ only by case, spaces, leading zeros or Unicode form, and are "
        "treated as different: give them one name if they are the same"
        for kind, names in names_of.items()
        for group in nearly_equal(names)
    ]


def _items(ratings: Ratings, plans: Sequence[Plan], seed: int) -> list[dict[str, Any]]:
    """Return the contrasts of the families :data:`cbtrain.eval.analysis.contrast_plan.BY_ITEM` for each item, with
    Holm's adjustment over the items of each contrast."""
    scores = dict(zip(ratings.item_names, ratings.items.T, strict=True)) if ratings.parts else {}
    return _by_part(ratings, scores, "item", plans, seed)


def _subscales(ratings: Ratings, plans: Sequence[Plan], seed: int) -> list[dict[str, Any]]:
    """Return the same contrasts for each sub-scale, in points of an item, with Holm's adjustment over the sub-scales
    of each contrast."""
    rows = _by_part(ratings, ratings.subscale_scores(), "subscale", plans, seed)
    return [{**row, "items": list(ratings.subscales[row["subscale"]])} for row in rows]


def _by_part(
    ratings: Ratings, scores: Mapping[str, np.ndarray], kind: str, plans: Sequence[Plan], seed: int
) -> list[dict[str, Any]]:
    """Return the contrasts of ``scores``, float64 ``[rows]`` each, by the part of the instrument that they are of."""
    plans = [plan for plan in plans if plan.family in BY_ITEM]
    by_part = [compare(ratings, plans, values, draws=0, seed=seed) for values in scores.values()]
    rows = []
    for index, plan in enumerate(plans):
        contrasts = with_holm([part[index] for part in by_part])
        for name, contrast in zip(scores, contrasts, strict=True):
            keys = ("estimate", "se", "ci_low", "ci_high", "p", "p_adjusted")
            rows.append({"contrast": plan.id, kind: name, **{key: getattr(contrast, key) for key in keys}})
    return rows


def _scale(ratings: Ratings) -> dict[str, Any] | None:
    """Return the points of an item, the range of totals and the cut-off; None if the instrument is not known."""
    if ratings.scale is None:
        return None
    scale, weight = ratings.scale, ratings.weight
    return {
        "min": scale.low,
        "max": scale.high,
        "total_min": scale.low * weight,
        "total_max": scale.high * weight,
        "cutoff": scale.cutoff,
    }


def _published(published: PaperAnalysis) -> dict[str, Any]:
    """Return the 2024 study's analysis under its keys in JSON."""
    fit = published.fit
    return {
        "method": "total ~ base + variant + session, random intercept by patient, maximum likelihood, Wald intervals; "
        "Bonferroni over all coefficients, the patients' variance included, as published",
        "groups": [asdict(group) for group in published.groups],
        "fixed_effects": [asdict(term) | {"p_adjusted": published.p_adjusted[term.term]} for term in published.terms],
        "patient_variance": fit.patient_variance,
        "residual_variance": fit.scale,
        "log_likelihood": fit.log_likelihood,
        "aic": fit.aic,
        "n": fit.n,
        "optimizer": fit.optimizer,
        "problem": fit.problem,
    }


def _without_total(ratings: Ratings) -> dict[str, int]:
    """Return the number of ratings without a total, by arm."""
    missing = ~np.isfinite(ratings.total)
    return {name: int((missing & (ratings.arm == name)).sum()) for name in ratings.arms}
