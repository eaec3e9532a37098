"""Designs of a study, patients by sessions by repeats, with what each of them can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
REPEATS = (1, 3, 5)
METHOD = (
    "paired comparison of two arms, the patient as the unit: two-sided t test over the patients' mean differences, "
    "power by the noncentral distribution; variance = between² + 2 · (within² + repeat² / repeats) / seeds"
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is planned for. ``effect``: points; ``power``: to be reached; ``contrasts`` tested together share ``alpha``
    (Bonferroni, which is also Holm's first step). Of ``effect`` and ``patients`` one at least is given."""

    effect: float | None = None
    patients: int | None = None
    seeds: int | None = None
    repeats: int | None = None
    power: float = 0.8
    alpha: float = 0.05
    contrasts: int = 1

    @property
    def alpha_each(self) -> float:
        return self.alpha / self.contrasts


def study_size(spread: Spread, question: Question, pilots: Sequence[Pilot] = ()) -> dict[str, Any]:
    """Return every design asked for, as JSON has it: with ``patients`` what so many show, else the patients that
    ``effect`` needs. ``pilots``: where ``spread`` comes from, the one planned for first; its upper limit is
    given too."""
    pilot = pilots[0] if pilots else None
    seeds = (question.seeds,) if question.seeds else SEEDS
    repeats = (question.repeats,) if question.repeats else REPEATS if spread.repeat else (1,)
    designs = []
    for each in seeds:
        for times in repeats:
            design: dict[str, Any] = {"seeds": each, "repeats": times}
            design |= _shown(spread.variance(each, times), question)
            if pilot:
                design["upper"] = _shown(pilot.upper_variance(each, times), question)
            designs.append(design)
    return {
        "schema": SCHEMA,
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "method": METHOD,
        "question": asdict(question) | {"alpha_each": question.alpha_each},
        "spread": asdict(spread),
        "pilots": [_described(one) for one in pilots],
        "upper_level": UPPER if pilot else None,
        "designs": designs,
        "conclusion": _conclusion(designs, question),
        "notes": _notes(designs, question, pilot),
    }


def _described(pilot: Pilot) -> dict[str, Any]:
    return {
        "contrast": pilot.contrast,
        "patients": pilot.patients,
        "pairs": pilot.pairs,
        "estimate": pilot.estimate,
        "spread": asdict(pilot.spread),
        "notes": pilot.notes,
    }


def _shown(variance: float, question: Question) -> dict[str, Any]:
    """Return patients, the power for ``effect`` and the smallest difference they show with the power asked for; None if
    there is none. A variance of 0 shows everything."""
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
    """Return the design with the usual number of sessions in a sentence."""
    reached = [design for design in designs if design["patients"] is not None]
    power = f"{100 * question.power:g} % power"
    points = f"{question.effect:g} points" if question.effect is not None else ""
    if not reached:
        return f"No design here shows a difference of {points} with {power}: it needs over {MOST_PATIENTS:,} patients."
    chosen = min(reached, key=lambda design: (abs(design["seeds"] - 3), design["repeats"]))
    sessions = f"{chosen['seeds']} session{'s' if chosen['seeds'] > 1 else ''} a patient and arm"
    if chosen["repeats"] > 1:
        sessions += f", each rated {chosen['repeats']} times"
    text = f"With {sessions}, {chosen['patients']:,} patients show a difference of "
    if question.patients is None:
        text += f"{points} with {power}"
    else:
        text += f"{chosen['detectable']:.3g} points or more with {power}"
        if chosen["power"] is not None:
            text += f", and one of {points} with {100 * chosen['power']:.0f} %"
    if "upper" not in chosen:
        return f"{text}."
    return f"{text}; {_cautious(chosen['upper'], question)}."


def _cautious(upper: dict[str, Any], question: Question) -> str:
    limit = f"at the upper {100 * UPPER:.0f} % limit of the pilot's variance"
    if question.patients is not None:
        return f"{limit} it is {upper['detectable']:.3g} points"
    return f"{limit} {f'over {MOST_PATIENTS:,}' if upper['patients'] is None else format(upper['patients'], ',')} do"


def _notes(designs: Sequence[dict[str, Any]], question: Question, pilot: Pilot | None) -> list[str]:
    notes = list(pilot.notes) if pilot else []
    if pilot:
        what = f"variances from a pilot of {pilot.patients} patients are uncertain"
        notes.append(f"{what}: plan for the upper limit where it can be afforded")
    if question.contrasts > 1:
        shared = f"{question.contrasts} contrasts share alpha: each is planned at {question.alpha_each:.3g}"
        notes.append(f"{shared} (Bonferroni; with Holm the power is at least this)")
    least = least_for_signs(question.alpha_each)
    if any((design["patients"] or least) < least for design in designs):
        notes.append(f"an exact sign-flip test needs {least} patients to reach p ≤ {question.alpha_each:.3g}")
    return notes
