"""The rotary embedding that a model's ``config.json`` describes, as ``transformers`` reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cbtrain.errors import UserError, nearest

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
ORIGINAL = "original_max_position_embeddings"
SLOWEST = 1e-6
"""The smallest ``beta_slow``, in turns."""

KEYS = {
    "default": set(),
    "linear": {"factor", ORIGINAL},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", ORIGINAL},
    "yarn": {"factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate", ORIGINAL},
}
"""Keys that each type uses, besides its name and theta."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding: ``theta`` and the parameters of its frequency scaling: ``factor`` for all types, the next three
    for ``llama3``, the last three for ``yarn``. ``attention_factor`` multiplies cosines and sines."""

    theta: float = 10_000.0
    type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0


def read_rope(config: dict[str, Any], where: object) -> Rope:
    """Read the rotary embedding of a parsed ``config.json``.

    ``rope_parameters`` is the key of transformers 5; older files have ``rope_theta`` and an optional ``rope_scaling``.
    Raises UserError on a type that is not supported, and if two keys contradict each other: transformers would take one
    of them and say nothing.
    """
    scaling, parameters = config.get("rope_scaling"), config.get("rope_parameters")
    rope = _read(config, scaling or parameters or {}, where)
    if scaling and parameters:
        other = _read(config, parameters, where)
        if other != rope:
            problem = f"rope_scaling ({_shortly(rope)}) and rope_parameters ({_shortly(other)}) contradict each other"
            hint = "Write the one that is meant into rope_parameters, with its rope_theta, and remove rope_scaling."
            raise UserError(problem, where=where, hint=hint)
    return rope


def unused_rope_keys(config: dict[str, Any]) -> list[str]:
    """Return a short text for each key of ``rope_scaling`` and ``rope_parameters`` that is not used."""
    notes = []
    for name in ("rope_scaling", "rope_parameters"):
        parameters = config.get(name) or {}
        used = KEYS.get(_type(parameters), set()) | {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
        notes += [
            f"{name}.{key}={parameters[key]!r}"
            for key in sorted(parameters.keys() - used)
            if parameters[key] is not None
        ]
        if parameters.get(ORIGINAL) and config.get(ORIGINAL) not in (None, parameters[ORIGINAL]):
            notes.append(
                f"{name}.{ORIGINAL}={parameters[ORIGINAL]!r} (the {ORIGINAL} outside it counts, as in transformers)"
            )
        if (parameters.get("mscale") is None) != (parameters.get("mscale_all_dim") is None):
            notes.append(f"{name}: mscale and mscale_all_dim count only together")
    return notes


def _read(config: dict[str, Any], parameters: dict[str, Any], where: object) -> Rope:
    if any(isinstance(value, dict) for value in parameters.values()):
        hint = "Only one RoPE for all layers is supported."
        raise UserError("RoPE that differs by layer is not supported", where=where, hint=hint)
    kind = _type(parameters)
    if kind not in ROPE_TYPES:
        raise UserError(f"RoPE type {kind!r} is not supported", where=where, hint=nearest(str(kind), ROPE_TYPES))
    if parameters.get("type") not in (None, kind):
        problem = f"rope_type is {kind!r}, but type is {parameters['type']!r}"
        raise UserError(problem, where=where, hint="Keep rope_type and remove type.")
    for partial in (parameters.get("partial_rotary_factor"), config.get("partial_rotary_factor")):
        if partial not in (None, 1, 1.0):
            raise UserError(
                f"RoPE on {partial:g} of each head is not supported",
                where=where,
                hint="Only RoPE on whole heads is supported.",
            )
    thetas = {float(theta) for theta in (parameters.get("rope_theta"), config.get("rope_theta")) if theta is not None}
    if len(thetas) == 2:
        problem = f"rope_theta is {config['rope_theta']:g} in one place and {parameters['rope_theta']:g} in another"
        raise UserError(problem, where=where, hint="Keep the one that is meant, in rope_parameters.")
    theta = thetas.pop() if thetas else 10_000.0
    if kind == "default":
        return Rope(theta=theta)
    factor, reach = float(parameters["factor"]), config.get("max_position_embeddings") or 2048
    # The key outside the dictionary comes first in transformers; "linear" does not read it.
    original = (config.get(ORIGINAL) if kind != "linear" else None) or parameters.get(ORIGINAL)
    if kind == "linear":
        return Rope(theta=theta, type=kind, factor=factor, original_max_positions=int(original or reach))
    if kind == "yarn":
        if not parameters.get("truncate", True):
            raise UserError("RoPE type 'yarn' with truncate=false is not supported", where=where, hint="Remove it.")
        fast, slow = parameters.get("beta_fast") or 32, parameters.get("beta_slow") or 1
        if not SLOWEST <= slow <= fast:
            problem = f"RoPE type 'yarn' with beta_fast {fast:g} and beta_slow {slow:g}"
            raise UserError(problem, where=where, hint="Restore the file that the model was published with.")
        return Rope(
            theta=theta,
            type=kind,
            factor=factor,
            original_max_positions=int(original or reach),
            beta_fast=float(fast),
            beta_slow=float(slow),
            attention_factor=_yarn_attention(parameters, factor),
        )
    if not original:
        raise KeyError(ORIGINAL)
    low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
    if not 0 < low < high:
        problem = f"RoPE type 'llama3' with low_freq_factor {low:g} and high_freq_factor {high:g}"
        raise UserError(problem, where=where, hint="Restore the file that the model was published with.")
    return Rope(
        theta=theta,
        type=kind,
        factor=factor,
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_positions=int(original),
    )


def _type(parameters: dict[str, Any]) -> Any:
    return parameters.get("rope_type") or parameters.get("type") or "default"


def _shortly(rope: Rope) -> str:
    factor = "" if rope.type == "default" else f", factor {rope.factor:g}"
    return f"{rope.type}{factor}, theta {rope.theta:g}"


def _yarn_attention(parameters: dict[str, Any], factor: float) -> float:
    """Return the config's factor on cosines and sines, or YaRN's (arXiv 2309.00071, section 3.4)."""

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if parameters.get("attention_factor") is not None:
        return float(parameters["attention_factor"])
    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return scale(float(parameters["mscale"])) / scale(float(parameters["mscale_all_dim"]))
    return scale(1.0)
