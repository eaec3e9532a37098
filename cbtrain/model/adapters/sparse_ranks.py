"""How ranks that train together agree on the places of sparse deltas. Alone, each function returns what it is given."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(tensors: list[Tensor]) -> list[Tensor]:
    """Return ``tensors`` (one dtype) summed over ranks, each in its shape."""
    if world() == 1 or not tensors:
        return tensors
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def leading(tensor: Tensor) -> Tensor:
    """Return the leading rank's ``tensor``."""
    if world() > 1:
        dist.broadcast(tensor, 0)
    return tensor


def first_of(tensor: Tensor, has_one: bool) -> Tensor | None:
    """Return the ``tensor`` (int32) of the first rank that has one, or None if no rank has."""
    if world() == 1:
        return tensor if has_one else None
    own = torch.cat([tensor.new_full((1,), int(has_one)), tensor])
    every = [torch.empty_like(own) for _ in range(world())]
    dist.all_gather(every, own)
    return next((found[1:] for found in every if bool(found[0])), None)
