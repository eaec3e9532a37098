"""The order of arms in every table and figure: base by base, in each base from untuned to tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cbtrain.eval.analysis.arms import UNTUNED, Arm

PLACEBO, TUNED = "placebo", "tuned"
BY_ARM = ("arms", "groups", "levels", "by_phase")
"""Keys of an analysis under which there is a list with entries for each arm."""


def variant_rank(variant: str) -> int:
    """Return the place of ``variant`` within a base: 0 untuned (any of its names), 1 placebo, 2 others, 3 tuned."""
    if variant in UNTUNED.values():
        return 0
    return {PLACEBO: 1, TUNED: 3}.get(variant, 2)


def base_of(arm: Arm) -> str:
    """Return the base of ``arm``. An arm of which neither base nor variant is known is a base of its own."""
    return arm.base if arm.base or arm.variant else arm.name


def arm_order(arms: Sequence[Arm], reference: str = "") -> list[str]:
    """Return the names of ``arms`` in order. Bases have the order in which ``arms`` first names them; the arm called
    ``reference`` is the first of its base, and its base is the first."""
    by_base: dict[str, list[Arm]] = {}
    for arm in sorted(arms, key=lambda arm: arm.name != reference):
        by_base.setdefault(base_of(arm), []).append(arm)
    return [
        arm.name
        for members in by_base.values()
        for arm in sorted(members, key=lambda arm: (arm.name != reference, variant_rank(arm.variant)))
    ]


def common_reference(results: Mapping[str, Any]) -> str:
    """Return the arm that every other one is compared with, in ``results`` (as for :func:`in_arm_order`): the one that
    is declared as it, else the one with which every pair of the family ``reference`` ends. Empty if there is none."""
    declared = [row["name"] for row in results["arms"] if row.get("is_reference")]
    plan = results.get("plan", ())
    seconds = {pair[-1] for row in plan if row["family"] == "reference" for pair in row["pairs"]}
    names = declared or list(seconds)
    return str(names[0]) if len(names) == 1 else ""


def in_arm_order(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``results`` (the return value of :func:`cbtrain.eval.analysis.analyze.analysis`) with every list that has
    an entry for each arm in the order of :func:`arm_order`. Contrasts keep the order of the plan."""
    arms = [Arm(row["name"], row["base"], row["variant"]) for row in results["arms"]]
    order = {name: index for index, name in enumerate(arm_order(arms, common_reference(results)))}

    def in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda row: order[row["name"]])

    ordered: dict[str, Any] = dict(results)
    for key in BY_ARM:
        if key in results:
            ordered[key] = in_order(results[key])
    for part in ("completion", "length", "trend"):
        if ordered.get(part):
            ordered[part] = {**ordered[part], "arms": in_order(ordered[part]["arms"])}
    return ordered
