"""From a table of ratings to everything that may be claimed from it, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

import cbtrain
from cbtrain.eval.analysis.agreement.panel import Panel, by_panel, left_out, panel_of, panel_ratings
from cbtrain.eval.analysis.agreement.reliability import reliability
from cbtrain.eval.analysis.contrasts import Contrast, Plan, compare, plan_contrasts, with_holm
from cbtrain.eval.analysis.descriptives import levels, session_groups
from cbtrain.eval.analysis.missingness import bounds, completion
from cbtrain.eval.analysis.mixed_models.beside_contrasts import mixed_model
from cbtrain.eval.analysis.mixed_models.interaction import interaction
from cbtrain.eval.analysis.mixed_models.tahir2024 import PaperAnalysis, analyze_as_published
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.analysis.session_length import length_analysis
from cbtrain.eval.analysis.sessions import Key, SessionOutcome

SCHEMA = "cbtrain.analysis/1"


def analysis(
    ratings: Ratings,
    protocol: str,
    facts: Mapping[Key, SessionOutcome] | None = None,
    *,
    deciding: Sequence[str] = (),
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """The analysis by ``protocol`` (``default`` or ``paper``) as JSON has it: what cannot be given is null. ``facts``
    are those of the sessions, where they are known; ``deciding`` as
    :func:`cbtrain.eval.analysis.agreement.panel.panel_of` has it.

    Raises DoesNotFit where the protocol does not fit the table.
    """
    found = {
        "schema": SCHEMA,
        "protocol": protocol,
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "ratings": len(ratings),
        "patients": len(set(ratings.patient)),
        "judges": ratings.judges,
        "scale": _scale(ratings),
        "ratings_without_total": _without_total(ratings),
    }
    if protocol == "paper":
        found |= _published(analyze_as_published(ratings))
    else:
        found |= _default(ratings, facts or {}, deciding, draws, seed)
    plain: dict[str, Any] = _plain(found)
    return plain


def _default(
    everything: Ratings, facts: Mapping[Key, SessionOutcome], deciding: Sequence[str], draws: int, seed: int
) -> dict[str, Any]:
    panel = panel_of(everything, deciding)
    ratings = panel_ratings(everything, panel)
    known = by_panel(everything, panel)
    plans = plan_contrasts(ratings.arms)
    total = compare(ratings, plans, ratings.total, draws, seed)
    length = length_analysis(ratings, facts, plans, draws, seed, known=known)
    crossed, model = interaction(ratings, plans), mixed_model(ratings, plans)
    return {
        "unit": "patient",
        "panel": asdict(panel),
        "notes": _notes(everything, ratings, panel),
        "bootstrap": {"draws": draws, "seed": seed, "levels": "patients, then their sessions"},
        "plan": [asdict(plan) for plan in plans],
        "groups": [asdict(group) for group in session_groups(ratings)],
        "contrasts": [asdict(contrast) for contrast in total],
        "mixed_models": [asdict(contrast) for contrast in model.contrasts],
        "variances": asdict(model.components) if model.components else None,
        "interaction": asdict(crossed) if crossed else None,
        "items": _items(ratings, plans, seed),
        "levels": [asdict(level) for level in levels(ratings, draws, seed, pooled=panel.pooled)],
        "length": asdict(length) if length else None,
        "completion": asdict(completion(known, facts, plans)),
        "bounds": [asdict(bound) for bound in bounds(ratings, facts, plans, total, known=known, pooled=panel.pooled)],
        "agreement": reliability(everything, plans, draws, seed),
    }


def _notes(everything: Ratings, ratings: Ratings, panel: Panel) -> list[str]:
    """What a reader has to know of the table."""
    notes = [note for note in (panel.note, left_out(everything, panel)) if note]
    if len(ratings.arms) < 2:
        notes.append("one arm: there is nothing to compare")
    if ratings.scale is None:
        notes.append("the instrument of these scores is not known: no cut-off, no bounds, no check of their points")
    return notes


def _items(ratings: Ratings, plans: Sequence[Plan], seed: int) -> list[dict[str, Any]]:
    """Each contrast of the tuning family (or of all arms) item by item, Holm over the items of one contrast."""
    rows = []
    for plan in plans:
        if plan.family not in ("tuning", "arms"):
            continue
        made: list[Contrast] = []
        for place in range(len(ratings.item_names)):
            made += compare(ratings, [plan], ratings.items[:, place], draws=0, seed=seed)
        for name, one in zip(ratings.item_names, with_holm(made), strict=True):
            keys = ("estimate", "se", "ci_low", "ci_high", "p", "p_adjusted")
            rows.append({"contrast": plan.id, "item": name, **{key: getattr(one, key) for key in keys}})
    return rows


def _scale(ratings: Ratings) -> dict[str, Any] | None:
    if ratings.scale is None:
        return None
    count = len(ratings.item_names)
    totals = {"total_min": ratings.scale.low * count, "total_max": ratings.scale.high * count}
    return {"min": ratings.scale.low, "max": ratings.scale.high, **totals, "cutoff": ratings.scale.cutoff}


def _published(found: PaperAnalysis) -> dict[str, Any]:
    fit = found.fit
    return {
        "method": "total ~ base + variant + session, random intercept by patient, maximum likelihood, Wald intervals; "
        "Bonferroni over all coefficients, the patients' variance included, as published",
        "groups": [asdict(group) for group in found.groups],
        "fixed_effects": [asdict(term) | {"p_adjusted": found.p_adjusted[term.term]} for term in found.terms],
        "patient_variance": fit.patient_variance,
        "residual_variance": fit.scale,
        "log_likelihood": fit.log_likelihood,
        "aic": fit.aic,
        "n": fit.n,
        "optimizer": fit.optimizer,
        "problem": fit.problem,
    }


def _without_total(ratings: Ratings) -> dict[str, int]:
    """Ratings without a total, by arm."""
    missing = ~np.isfinite(ratings.total)
    return {name: int((missing & (ratings.arm == name)).sum()) for name in ratings.arms}


def _plain(value: Any) -> Any:
    """``value`` with null in place of what JSON has no word for."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
