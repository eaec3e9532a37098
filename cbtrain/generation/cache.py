"""The key-value cache: one slot per conversation, kept between its turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cbtrain.model.architecture import Architecture
from cbtrain.model.attention.cached import attention_in_place, cached_attention
from cbtrain.model.attention.cu_seqlens import CuSeqlens
from cbtrain.model.attention.packed import packed_attention


@dataclass(slots=True)
class Slot:
    """One row of the cache: the ``tokens`` whose keys and values are valid, and whether the adapter computed them."""

    index: int
    tokens: list[int] = field(default_factory=list)
    adapter: bool = False
    busy: bool = False
    last_used: int = 0


class KVCache:
    """Keys and values, each ``[layers, slots, kv_heads, context, head_dim]``, and the slots' owners."""

    def __init__(
        self,
        a: Architecture,
        slots: int,
        context: int,
        dtype: torch.dtype,
        device: torch.device | str,
        attention: str = "auto",
    ) -> None:
        shape = (a.layers, slots, a.kv_heads, context, a.head_dim)
        # Zeros, not empty: a masked weight of 0 times a NaN that was never written is NaN. On CPUs zero pages take no
        # memory until they are touched.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.window, self.attention = a.sliding_window, attention
        self.slots = [Slot(i) for i in range(slots)]
        self._clock = 0

    def acquire(self, prompt: Sequence[int], adapter: bool) -> Slot | None:
        """Return a free slot for ``prompt``, trimmed to the tokens they share; None while all are busy.

        A slot whose conversation ``prompt`` continues is taken before any other. One that shares only a beginning
        (a system prompt, say) is not robbed of its conversation while an older slot is free.
        """
        free = [slot for slot in self.slots if not slot.busy]
        if not free:
            return None
        best, shared = min(free, key=lambda slot: slot.last_used), 0
        for slot in free:
            if slot.adapter != adapter:
                continue
            common = common_prefix(slot.tokens, prompt)
            if common > shared and 2 * common >= len(slot.tokens):
                best, shared = slot, common
        # The last prompt token is always computed anew: its hidden state predicts the first answer token.
        del best.tokens[min(shared, len(prompt) - 1) :]
        self._clock += 1
        best.adapter, best.busy, best.last_used = adapter, True, self._clock
        return best

    def release(self, slot: Slot) -> None:
        slot.busy = False


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many leading tokens ``a`` and ``b`` share."""
    length = min(len(a), len(b))
    for i in range(length):
        if a[i] != b[i]:
            return i
    return length


class PrefillAttention:
    """``attend`` for new prompt tokens of several slots, packed in one row, each after its slot's cached tokens."""

    def __init__(self, cache: KVCache, slots: Sequence[int], starts: Sequence[int], lengths: Sequence[int]) -> None:
        self.cache, self.slots, self.starts, self.lengths = cache, slots, starts, lengths
        self.new = [CuSeqlens((0, length)) for length in lengths]
        self.seen = [CuSeqlens((0, start + length)) for start, length in zip(starts, lengths, strict=True)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        outputs, at = [], 0
        places = zip(self.slots, self.starts, self.lengths, self.new, self.seen, strict=True)
        for slot, start, length, cu_seqlens_q, cu_seqlens_k in places:
            keys, values = self.cache.keys[layer, slot], self.cache.values[layer, slot]
            end = start + length
            keys[:, start:end] = k[at : at + length].transpose(0, 1)
            values[:, start:end] = v[at : at + length].transpose(0, 1)
            outputs.append(
                packed_attention(
                    q[at : at + length],
                    keys[:, :end].transpose(0, 1),
                    values[:, :end].transpose(0, 1),
                    cu_seqlens_q=cu_seqlens_q,
                    cu_seqlens_k=cu_seqlens_k,
                    window=self.cache.window,
                    backend=self.cache.attention,
                )
            )
            at += length
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class DecodeAttention:
    """``attend`` for one new token in each of several slots."""

    def __init__(self, cache: KVCache, slots: Sequence[int], positions: Sequence[int]) -> None:
        device = cache.keys.device
        self.cache, self.host_slots, self.lengths = cache, slots, [position + 1 for position in positions]
        self.slots = torch.tensor(slots, device=device)
        self.positions = torch.tensor(positions, device=device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values, window = self.cache.keys[layer], self.cache.values[layer], self.cache.window
        keys[self.slots, :, self.positions] = k
        values[self.slots, :, self.positions] = v
        if q.device.type == "cpu":
            return attention_in_place(q, keys, values, self.host_slots, self.lengths, window)
        # A launch for each slot would cost a GPU more than the copy.
        longest = max(self.lengths)
        past_keys = keys[:, :, :longest].index_select(0, self.slots)
        past_values = values[:, :, :longest].index_select(0, self.slots)
        return cached_attention(q, past_keys, past_values, self.positions + 1, window)
