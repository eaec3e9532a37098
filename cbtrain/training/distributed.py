"""The processes of one run, as ``torchrun`` started them: who this is, and how to speak with the others."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Thing = TypeVar("Thing")


def joined() -> bool:
    """Return whether this process belongs to a group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if joined() else 0


def world() -> int:
    return dist.get_world_size() if joined() else 1


def launched() -> int:
    """Return the number of processes that the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_here() -> int:
    """Return how many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", launched()))


def join(timeout_minutes: float, *, alone: bool = False) -> None:
    """Join the process group if there are several ranks; with ``alone`` make a group of one too, as DeepSpeed needs.

    Tensors on CPUs travel by gloo, those on GPUs by NCCL.
    """
    if joined() or (launched() == 1 and not alone):
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    timeout = datetime.timedelta(minutes=timeout_minutes)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    if launched() > 1:
        dist.init_process_group(backend, timeout=timeout)
    else:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
        dist.init_process_group(backend, timeout=timeout, store=dist.HashStore(), rank=0, world_size=1)


def leave() -> None:
    """Leave the process group after all ranks have arrived here."""
    if joined():
        dist.barrier()
        dist.destroy_process_group()


def barrier() -> None:
    if world() > 1:
        dist.barrier()


def agreed(thing: Thing) -> Thing:
    """Return the leading rank's ``thing`` (anything that can be pickled), on every rank."""
    if world() == 1:
        return thing
    box = [thing]
    dist.broadcast_object_list(box)
    return box[0]


def gathered(thing: Thing) -> list[Thing]:
    """Return every rank's ``thing`` (anything that can be pickled), in the order of ranks, on every rank."""
    if world() == 1:
        return [thing]
    things: list[Any] = [None] * world()
    dist.all_gather_object(things, thing)
    return things


class Shared(Mapping[str, Tensor]):
    """The leading rank's ``tensors`` (on the CPU, of ``shapes``; fp32 if ``dtypes`` has none for them) on every rank:
    each is sent when it is asked for, which all ranks must do in the same order. So no rank but the leading one holds
    more than one of them."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        shapes: Mapping[str, torch.Size],
        dtypes: Mapping[str, torch.dtype] | None = None,
    ) -> None:
        self.tensors, self.shapes, self.dtypes = tensors, shapes, dtypes or {}

    def __getitem__(self, name: str) -> Tensor:
        if rank() == 0:
            tensor = self.tensors[name].contiguous()
        else:
            tensor = torch.empty(self.shapes[name], dtype=self.dtypes.get(name, torch.float32))
        if world() > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)
