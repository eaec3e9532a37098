"""How soon patients come round: agreement and reserve by the number of the answer, and the half-life of reserve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from cbtrain.eval.patient_audit.measures import Measured

FEWEST_SESSIONS = 5
"""An answer's share is given if this many sessions reach it."""

SMOOTH = 3
"""Answers over which reserve is averaged, for its start and for each point after it."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Shares by the number of the answer, from the first: of answers that open with agreement, and of reserved ones (no
    agreement, or a hedge). ``half_life``: see :func:`half_life`."""

    agreement: list[float]
    reserve: list[float]
    sessions: list[int]
    half_life: int | None


def curve_of(sessions: Sequence[Measured]) -> Curve:
    """Return the curve over ``sessions``, as far as :data:`FEWEST_SESSIONS` of them reach."""
    agreement, reserve, counts = [], [], []
    for index in range(max((len(session.agreement) for session in sessions), default=0)):
        reached = [session for session in sessions if len(session.agreement) > index]
        if len(reached) < FEWEST_SESSIONS:
            break
        agreement.append(fmean(session.agreement[index] for session in reached))
        reserve.append(fmean(session.reserve[index] for session in reached))
        counts.append(len(reached))
    return Curve(agreement, reserve, counts, half_life(reserve))


def half_life(reserve: Sequence[float]) -> int | None:
    """Return after how many answers half of the first reserve is gone.

    The first reserve is the mean of the first :data:`SMOOTH` answers; the half-life is the number of the first answer
    from which on the mean of as many answers is at most half of it. None if that does not happen within the curve, if
    it is shorter than two such means, or if there was no reserve.
    """
    if len(reserve) < 2 * SMOOTH:
        return None
    means = [fmean(reserve[start : start + SMOOTH]) for start in range(len(reserve) - SMOOTH + 1)]
    if not means[0]:
        return None
    return next((start + 1 for start, mean in enumerate(means) if mean <= means[0] / 2), None)
