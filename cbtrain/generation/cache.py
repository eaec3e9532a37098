"""The key-value cache: one slot per conversation, kept between its turns until another one needs the room."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.generation.config import EngineConfig
from cbtrain.model.architecture import Architecture

MOST_SLOTS = 64
"""Slots that are made without being asked for."""

WORTH_COPYING = 16
"""Tokens of a beginning that another slot holds, from which on they are copied rather than read again."""


CUT_TAIL = 2
"""Last tokens of a conversation that its next turn may write otherwise, and still continue it."""


@dataclass(slots=True)
class Slot:
    """One row of the cache: the ``tokens`` whose keys and values are valid, and the digest of the adapter that computed
    them ("" for the base)."""

    index: int
    tokens: list[int] = field(default_factory=list)
    digest: str = ""
    busy: bool = False
    last_used: int = 0


class KVCache:
    """Keys and values, each ``[layers, slots, kv_heads, context, head_dim]``, and the slots' owners.

    A slot holds one whole conversation in one piece, so that attention reads it in place: pages of 256 tokens took 2.2
    times as long on a CPU (``docs/log.md``). On CPUs, memory is taken by the tokens that are there, not by the slots.
    Raises UserError if not even one slot fits in the memory that ``config`` gives.
    """

    def __init__(self, a: Architecture, config: EngineConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.context = min(config.context_tokens, a.context)
        per_token = 2 * a.layers * a.kv_heads * a.head_dim * dtype.itemsize
        slots = _slots_in_memory(config, self.context, per_token, device)
        try:
            self.keys, self.values = (_zeros(a, slots, self.context, dtype, device) for _ in range(2))
        except (OSError, OverflowError, ValueError, torch.cuda.OutOfMemoryError):
            gigabytes = slots * self.context * per_token / 1e9
            problem = f"there is no memory for {slots:,} slots of {self.context:,} tokens ({gigabytes:,.2f} GB)"
            raise UserError(problem, where="evaluation.engine.slots", hint="Lower it, or context_tokens.") from None
        self.window = a.sliding_window
        self.slots = [Slot(i) for i in range(slots)]
        self.bytes_per_token = per_token
        self._clock = 0

    def acquire(self, prompt: Sequence[int], digest: str) -> Slot | None:
        """Return a free slot for ``prompt``, trimmed to the tokens they share; None while all are busy.

        The slot whose conversation ``prompt`` continues is taken; else an empty one, or the one used least recently.
        What another slot, busy or not, shares with ``prompt`` (a system prompt, say) is copied from it.
        """
        free = [slot for slot in self.slots if not slot.busy]
        if not free:
            return None
        shared = dict(zip(range(len(self.slots)), self._shared(prompt, digest), strict=True))
        continued = [slot for slot in free if slot.tokens and shared[slot.index] >= len(slot.tokens) - CUT_TAIL]
        if continued:
            best = max(continued, key=lambda slot: shared[slot.index])
        else:
            best = min(free, key=lambda slot: (bool(slot.tokens), slot.last_used))
        source = max(self.slots, key=lambda slot: shared[slot.index])
        length = shared[best.index]
        if shared[source.index] >= length + WORTH_COPYING:
            length = shared[source.index]
            self.keys[:, best.index, :, :length] = self.keys[:, source.index, :, :length]
            self.values[:, best.index, :, :length] = self.values[:, source.index, :, :length]
            best.tokens = source.tokens[:length]
        # The last prompt token is always computed anew: its hidden state predicts the first answer token.
        del best.tokens[min(length, len(prompt) - 1) :]
        best.digest, best.busy = digest, True
        self._use(best)
        return best

    def longest_shared(self, prompt: Sequence[int], digest: str) -> int:
        """Return how many leading tokens of ``prompt`` are in some slot under ``digest``."""
        return max(self._shared(prompt, digest), default=0)

    def release(self, slot: Slot) -> None:
        slot.busy = False
        self._use(slot)

    def discard(self, slot: Slot, written: int) -> None:
        """Release ``slot`` and forget its first ``written`` tokens: NaN among their keys would reach whoever comes next
        through the mask, since 0 times NaN is NaN."""
        self.keys[:, slot.index, :, :written] = 0
        self.values[:, slot.index, :, :written] = 0
        slot.tokens = []
        self.release(slot)

    def _use(self, slot: Slot) -> None:
        self._clock += 1
        slot.last_used = self._clock

    def _shared(self, prompt: Sequence[int], digest: str) -> list[int]:
        return [common_prefix(slot.tokens, prompt) if slot.digest == digest else 0 for slot in self.slots]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many leading tokens ``a`` and ``b`` share. Slices are compared, which is fast for lists."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:  # the first `low` are equal, the first `high` are not
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _zeros(a: Architecture, slots: int, context: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros, not uninitialized memory: a masked weight of 0 times a NaN that was never written is NaN."""
    shape = (a.layers, slots, a.kv_heads, context, a.head_dim)
    if device.type != "cpu":
        # FlashAttention reads [context, kv_heads, head_dim] of a slot in one piece.
        shape = (a.layers, slots, context, a.kv_heads, a.head_dim)
        return torch.zeros(shape, dtype=dtype, device=device).transpose(2, 3)
    # Pages that the system gives are zeros and take no memory until they are written, in steps of 4 kB: torch.zeros
    # writes all at once, and numpy asks for pages of 2 MB.
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(pages, dtype=dtype).view(shape)


def _slots_in_memory(config: EngineConfig, context: int, bytes_per_token: int, device: torch.device) -> int:
    given = config.memory_gb * 1e9 if config.memory_gb else _free_bytes(device)
    bytes_per_slot = context * bytes_per_token
    fitting = int(given // bytes_per_slot)
    if config.slots and (config.memory_gb is None or config.slots <= fitting):
        return config.slots
    if fitting < 1:
        problem = f"one conversation of {context:,} tokens takes {bytes_per_slot / 1e6:,.2f} MB"
        hint = f"{given / 1e6:,.2f} MB are given: lower context_tokens, or raise memory_gb."
        raise UserError(problem, where="evaluation.engine", hint=hint)
    if config.slots:
        problem = f"{config.slots} slots do not fit into {given / 1e6:,.2f} MB, but {fitting} do"
        hint = "Lower it or context_tokens, or raise memory_gb."
        raise UserError(problem, where="evaluation.engine.slots", hint=hint)
    return min(fitting, MOST_SLOTS)


def _free_bytes(device: torch.device) -> float:
    """Return the bytes for keys and values if nobody says: seven tenths of what a GPU has free, a quarter of the
    machine's memory."""
    if device.type == "cuda":
        return 0.7 * torch.cuda.mem_get_info(device)[0]
    return 0.25 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
