"""The values that a model's ``config.json`` may have: finite numbers in range, whole where they count, and booleans.

They are checked before anything is built from them: a hundred million layers would take hours, and 2.9 layers are not
two. The ranges are far wider than any published model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cbtrain.errors import UserError

LONGEST_SHOWN = 40
"""Characters of a wrong value that an error shows."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    whole: bool = True

    def holds(self, value: object) -> bool:
        """Return whether ``value`` is a number of this range; NaN is in none, and a boolean is no number."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        return not self.whole or value == int(value)

    def __str__(self) -> str:
        return f"{'a whole number' if self.whole else 'a number'} from {self.low} to {self.high}"


TOKEN_ID = Range(-1, 2**31 - 1)
POSITIONS = Range(1, 2**31 - 1)
FACTOR = Range(0, 10**6, whole=False)

NUMBERS = {
    "vocab_size": Range(1, 2**24),
    "hidden_size": Range(1, 2**20),
    "intermediate_size": Range(1, 2**24),
    "num_hidden_layers": Range(1, 1024),
    "num_attention_heads": Range(1, 2**16),
    "num_key_value_heads": Range(1, 2**16),
    "head_dim": Range(1, 2**16),
    "max_position_embeddings": POSITIONS,
    "sliding_window": POSITIONS,
    "rms_norm_eps": Range(0, 1, whole=False),
}
ROPE_NUMBERS = {
    "original_max_position_embeddings": POSITIONS,
    "rope_theta": Range(0, 10**15, whole=False),
    "factor": FACTOR,
    "low_freq_factor": FACTOR,
    "high_freq_factor": FACTOR,
    "beta_fast": FACTOR,
    "beta_slow": FACTOR,
    "attention_factor": FACTOR,
    "mscale": Range(-(10**6), 10**6, whole=False),
    "mscale_all_dim": Range(-(10**6), 10**6, whole=False),
    "partial_rotary_factor": Range(0, 1, whole=False),
}
BOOLEANS = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window", "truncate")


def require_sound_values(config: dict[str, Any], where: object) -> None:
    """Raise UserError on a number of ``config`` or of its RoPE dictionaries that is out of its range or no number, and
    on a switch that is neither true nor false. A null is passed over."""
    ranges = NUMBERS | ROPE_NUMBERS
    _require(config, "", ranges, where)
    for name in ("rope_scaling", "rope_parameters"):
        if isinstance(config.get(name), dict):
            _require(config[name], f"{name}.", ranges, where)
    ids = config.get("eos_token_id")
    for token in ids if isinstance(ids, list) else [] if ids is None else [ids]:
        if not TOKEN_ID.holds(token):
            raise _wrong("eos_token_id", token, str(TOKEN_ID), where)


def _require(values: dict[str, Any], prefix: str, ranges: dict[str, Range], where: object) -> None:
    for key, value in values.items():
        if value is None:
            continue
        if key in ranges and not ranges[key].holds(value):
            raise _wrong(prefix + key, value, str(ranges[key]), where)
        if key in BOOLEANS and not isinstance(value, bool):
            raise _wrong(prefix + key, value, "true or false", where)


def _wrong(key: str, value: object, needed: str, where: object) -> UserError:
    shown = repr(value)
    shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}…"
    hint = "Is this a model's config.json, unchanged?"
    return UserError(f"a value of a wrong kind: {key} is {shown}, not {needed}", where=where, hint=hint)
