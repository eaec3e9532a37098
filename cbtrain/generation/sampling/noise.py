"""Gumbel noise that depends on a request's seed, the position in its answer and the token id, and on nothing else.

The hash is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"): the number of token
``i`` is output ``i`` (from 0) of the generator whose state starts at the key of (seed, position). Integers of 64 bits
wrap around alike on every device, so the uniform numbers have the same bits everywhere. The two logarithms are taken
in double precision and rounded to fp32 once: where the mathematical libraries of two devices, or the vectorised and the
scalar loop of one, differ in the last bit of a double, one noise value in hundreds of millions differs in its last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15
"""SplitMix64's increment: 2^64 divided by the golden ratio."""
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""SplitMix64's multipliers."""
BITS = 52
"""Bits of a uniform number, and of a double's fraction."""
ONE = 0x3FF << BITS
"""The bits of 1.0."""


def output(state: int, index: int) -> int:
    """Return output ``index`` (from 0) of SplitMix64 started at ``state``: an integer from 0 to 2^64 - 1."""
    word = (state + (index + 1) * STEP) & WORD
    word = ((word ^ (word >> 30)) * FIRST) & WORD
    word = ((word ^ (word >> 27)) * SECOND) & WORD
    return word ^ (word >> 31)


def seed_state(seed: int) -> int:
    """Return the state that :func:`key` starts at for ``seed``, any integer (taken modulo 2^64)."""
    return output(seed & WORD, 0)


def key(state: int, position: int) -> int:
    """Return the key of the noise at ``position`` of an answer whose seed has ``state``, as a signed 64-bit integer."""
    return _signed(output(state, position))


def hashed(keys: Tensor, ids: Tensor) -> Tensor:
    """Return output ``ids`` of SplitMix64 started at ``keys``: int64, shaped as the two broadcast together."""
    word = ids.mul(_signed(STEP)).add_(_signed(STEP)).add(keys)
    shifted = torch.empty_like(word)
    for places, multiplier in ((30, FIRST), (27, SECOND), (31, None)):
        torch.bitwise_right_shift(word, places, out=shifted)
        # The shift copies the sign; a logical one brings zeros.
        word.bitwise_xor_(shifted.bitwise_and_((1 << (64 - places)) - 1))
        if multiplier is not None:
            word.mul_(_signed(multiplier))
    return word


def gumbel(keys: Tensor, ids: Tensor) -> Tensor:
    """Return standard Gumbel noise for ``keys`` and token ``ids`` (int64, broadcast together), in fp32.

    ``-log(-log(1 - v))`` for uniform ``v`` of 52 bits, strictly between 0 and 1: precise where the noise is large, and
    always finite (from -3.61 to 36.74).
    """
    # The hash's low bits as the fraction of a double from 1 to 2: no conversion, which takes longer.
    word = hashed(keys, ids).bitwise_and_((1 << BITS) - 1).bitwise_or_(ONE)
    fraction = word.view(torch.float64)
    # -v, exactly: half a unit more than the fraction, so that it is never 0.
    torch.sub(1 - 0.5 * 2.0**-BITS, fraction, out=fraction)
    return fraction.log1p_().neg_().log_().neg_().to(torch.float32)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
