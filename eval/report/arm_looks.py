"""How arms look: a base has one hue and one shape, its variants differ by tone and filling.

So arms differ without colour too: in grey, and for readers who see few hues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from cbtrain.eval.analysis.arm_order import base_of, variant_rank
from cbtrain.eval.analysis.arms import Arm, arms_of
from cbtrain.eval.report.notable import row_of
from cbtrain.eval.report.schema.report import Report

HUES, SHAPES, TONES = 8, 8, 4


@dataclass(frozen=True, slots=True)
class ArmLook:
    """``hue`` and ``shape`` count from 0 below HUES and SHAPES; ``tone`` from 0 (light and hollow, for untuned arms) to
    3 (dark and full, for tuned ones)."""

    hue: int
    shape: int
    tone: int


def arms_in(report: Report) -> list[Arm]:
    """Return the arms of ``report`` in its order. A report of an older program has their bases and variants in its
    analysis only; else they are read from the names."""
    by_name = arms_of(arm.name for arm in report.arms)
    arms = []
    for arm in report.arms:
        row = row_of(report.analysis.arms, arm.name, "name")
        if arm.base or arm.variant:
            arms.append(Arm(arm.name, arm.base, arm.variant))
        else:
            arms.append(Arm(arm.name, row.base, row.variant) if row else by_name[arm.name])
    return arms


def looks_of(report: Report) -> dict[str, ArmLook]:
    """Return the look of each arm by name: 32 arms look different, later ones repeat. A base with more than four arms
    takes one shape for every four of them."""
    by_base: dict[str, list[Arm]] = {}
    for arm in arms_in(report):
        by_base.setdefault(base_of(arm), []).append(arm)
    looks, shape = {}, 0
    for hue, members in enumerate(by_base.values()):
        for start in range(0, len(members), TONES):
            block = members[start : start + TONES]
            for arm, tone in zip(block, _tones(block), strict=True):
                looks[arm.name] = ArmLook(hue % HUES, shape % SHAPES, tone)
            shape += 1
    return looks


def _tones(arms: Sequence[Arm]) -> tuple[int, ...]:
    """Return different tones for at most four ``arms`` of one base in order, as near as can be to those of their
    variants. An arm without a known variant is drawn like a tuned one."""
    wishes = [variant_rank(arm.variant) if arm.variant else TONES - 1 for arm in arms]
    choices = combinations(range(TONES), len(arms))
    return min(choices, key=lambda tones: sum(abs(tone - wish) for tone, wish in zip(tones, wishes, strict=True)))
