"""Designs of a study (patients × sessions × repeats), with the difference that each of them can detect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import cbtrain
from cbtrain.eval.analysis.power.pilot import UPPER, Pilot, Spread
from cbtrain.eval.analysis.power.power import (
    MOST_PATIENTS,
    detectable_difference,
    least_for_signs,
    patients_needed,
    power_of,
)

SCHEMA = "cbtrain.power/1"
SEEDS = (1, 2, 3, 5, 10, 20)
"""Sessions of each patient with each arm in the designs, if the question does not fix them."""

REPEATS = (1, 3, 5)
"""Ratings of each session by each judge in the designs, if the question does not fix them."""

METHOD = (
    "paired comparison of two arms, the patient as the unit: two-sided t test over the patients' mean differences, "
    "power by the noncentral distribution; variance = between² + 2 · (within² + repeat² / repeats) / seeds"
)


@dataclass(frozen=True, slots=True)
class Question:
    """What a study is planned for: an ``effect`` in points, or a number of ``patients``; at least one is given.

    ``seeds``: sessions of each patient with each arm; ``repeats``: ratings of each session by each judge; ``power``: to
    reach; ``contrasts``: tests that share ``alpha`` (Bonferroni, which is also Holm's first step).
    """

    effect: float | None = None
    patients: int | None = None
    seeds: int | None = None
    repeats: int | None = None
    power: float = 0.8
    alpha: float = 0.05
    contrasts: int = 1

    @property
    def alpha_each(self) -> float:
        """Return the level of one contrast."""
        return self.alpha / self.contrasts


def study_size(spread: Spread, question: Question, pilots: Sequence[Pilot] = ()) -> dict[str, Any]:
    """Return every design under its keys in JSON (schema ``cbtrain.power/1``): if the question has ``patients``, the
    smallest difference that they detect; else the patients that ``effect`` needs.

    ``pilots``: the pilots of ``spread``, the one that is planned for first. With a pilot, each design is also given at
    the upper limit of the pilot's variance.
    """
    pilot = pilots[0] if pilots else None
    seed_choices = (question.seeds,) if question.seeds else SEEDS
    if question.repeats:
        repeat_choices: tuple[int, ...] = (question.repeats,)
    else:
        repeat_choices = REPEATS if spread.repeat else (1,)
    designs = []
    for seeds, repeats in product(seed_choices, repeat_choices):
        design: dict[str, Any] = {"seeds": seeds, "repeats": repeats}
        design |= _figures(spread.variance(seeds, repeats), question)
        if pilot:
            design["upper"] = _figures(pilot.upper_variance(seeds, repeats), question)
        designs.append(design)
    return {
        "schema": SCHEMA,
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "method": METHOD,
        "question": asdict(question) | {"alpha_each": question.alpha_each},
        "spread": asdict(spread),
        "pilots": [_pilot_row(row) for row in pilots],
        "upper_level": UPPER if pilot else None,
        "designs": designs,
        "conclusion": _conclusion(designs, question),
        "notes": _notes(designs, question, pilot),
    }


def _pilot_row(pilot: Pilot) -> dict[str, Any]:
    """Return ``pilot`` under its keys in JSON."""
    return {
        "contrast": pilot.contrast,
        "patients": pilot.patients,
        "pairs": pilot.pairs,
        "estimate": pilot.estimate,
        "spread": asdict(pilot.spread),
        "notes": pilot.notes,
    }


def _figures(variance: float, question: Question) -> dict[str, Any]:
    """Return the patients, their power for ``effect``, and the smallest difference that they detect with the power of
    ``question``, in points. All three are None if too many patients are needed, the power also if there is no
    ``effect``. ``variance``: of a patient's mean difference; 0 detects everything."""
    sd, alpha = math.sqrt(variance), question.alpha_each
    patients = question.patients
    if patients is None:
        assert question.effect is not None
        patients = patients_needed(question.effect, sd, question.power, alpha) if sd else 2
    if patients is None:
        return {"patients": None, "power": None, "detectable": None}
    power = None
    if question.effect is not None:
        power = power_of(patients, question.effect, sd, alpha) if sd else 1.0
    detectable = detectable_difference(patients, sd, question.power, alpha) if sd else 0.0
    return {"patients": patients, "power": power, "detectable": detectable}


def _conclusion(designs: Sequence[dict[str, Any]], question: Question) -> str:
    """Return a sentence on the design whose number of sessions is nearest to three, with the fewest repeats."""
    feasible = [design for design in designs if design["patients"] is not None]
    power = f"{100 * question.power:g} % power"
    points = f"{question.effect:g} points" if question.effect is not None else ""
    if not feasible:
        return (
            f"None of these designs can detect a difference of {points} with {power}: each needs over "
            f"{MOST_PATIENTS:,} patients."
        )
    chosen = min(feasible, key=lambda design: (abs(design["seeds"] - 3), design["repeats"]))
    sessions = f"{chosen['seeds']} session{'s' if chosen['seeds'] > 1 else ''} per patient and arm"
    if chosen["repeats"] > 1:
        sessions += f", each rated {chosen['repeats']} times"
    upper = chosen.get("upper")
    limit = f"at the upper {100 * UPPER:.0f} % limit of the pilot's variance"
    if question.patients is None:
        patients = f"{chosen['patients']:,} patients"
        text = f"With {sessions}, {patients} are needed to detect a difference of {points} with {power}"
        if upper:
            needed = f"over {MOST_PATIENTS:,}" if upper["patients"] is None else f"{upper['patients']:,}"
            text += f"; {limit}, {needed} are needed"
        return f"{text}."
    text = (
        f"With {sessions}, {question.patients:,} patients can detect a difference of {chosen['detectable']:.3g} points "
        f"or more with {power}"
    )
    if chosen["power"] is not None:
        text += f", and one of {points} with {100 * chosen['power']:.0f} %"
    if upper:
        text += f"; {limit}, the smallest difference is {upper['detectable']:.3g} points"
    return f"{text}."


def _notes(designs: Sequence[dict[str, Any]], question: Question, pilot: Pilot | None) -> list[str]:
    """Return notes on the pilot, the adjustment for several contrasts, and the sign-flip test."""
    notes = list(pilot.notes) if pilot else []
    if pilot:
        uncertain = f"variances from a pilot of {pilot.patients} patients are uncertain"
        notes.append(f"{uncertain}: plan for the upper limit if you can afford it")
    if question.contrasts > 1:
        shared = f"{question.contrasts} contrasts share alpha: each is tested at {question.alpha_each:.3g}"
        notes.append(f"{shared} (Bonferroni; with Holm the power is at least this)")
    least = least_for_signs(question.alpha_each)
    if any((design["patients"] or least) < least for design in designs):
        notes.append(f"an exact sign-flip test needs {least} patients to reach p ≤ {question.alpha_each:.3g}")
    return notes
