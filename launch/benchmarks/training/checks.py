"""What a row must show before its speed is printed: that it has learnt, and the same as ``ours``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from benchmarks.training.rows import GEOMETRIES, Plan, Row

LINEARS = 7


def problems(result: dict[str, Any], row: Row, plan: Plan, reference: dict[str, Any] | None) -> list[str]:
    """Return why the speed of ``result`` says nothing, in words; empty if it does. ``reference`` is a result of
    ``ours``, for a row whose losses must be the same."""
    if row.system == "limit":
        return []
    found = []
    if any(not norm > 0 for norm in result["grad_norms"]):
        found.append(f"gradient norms are not all positive: {_texts(result['grad_norms'])}")
    adapted = LINEARS * GEOMETRIES[row.geometry]["num_hidden_layers"]
    if result["lora_b"]["count"] != adapted:
        found.append(f"{result['lora_b']['count']} lora_B are trained, and not {adapted}")
    elif not result["lora_b"]["smallest"] > 0:
        found.append("after the first step a lora_B is still zero")
    if any(not loss > 0 for loss in result["losses"]) or all(a == b for a, b in pairwise(result["losses"])):
        found.append(f"losses are not those of a model that learns: {_texts(result['losses'])}")
    if reference is not None:
        for key, what, tolerance in (
            ("losses", "losses", plan.tolerance),
            ("grad_norms", "gradient norms", plan.norm_tolerance),
        ):
            apart = difference(result[key], reference[key])
            if not apart <= tolerance:
                of_ours = f"are not those of ours ({_texts(reference[key])})"
                found.append(f"{what} {of_ours}, but {_texts(result[key])}: {apart:.1g} apart, more than {tolerance:g}")
    took = result.get("reserved", result["peak"])
    if row.most_bytes and took > row.most_bytes:
        found.append(f"it took {took / 1e9:.1f} GB, more than {row.most_bytes / 1e9:.0f}")
    return found


def difference(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the largest relative difference; infinite if there are not as many of both, or one is not a number."""
    if len(values) != len(others) or not values:
        return float("inf")
    apart = [
        abs(value - other) / abs(other) if other else float("inf") for value, other in zip(values, others, strict=True)
    ]
    return max(a if a == a else float("inf") for a in apart)


def _texts(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers)
