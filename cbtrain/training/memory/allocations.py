"""Track the memory of live tensors: allocations by operators, and releases."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of live storages that operators have allocated since it was entered.

    It sees what autograd saves, what recomputation keeps, and everything between, on any device, ``meta`` too. What
    existed before (weights, a pack) is not counted, views count once, and memory that a kernel takes inside one
    operator cannot be seen. ``granule`` is the step in bytes in which the allocator hands memory out. ``on_peak`` is
    called each time ``bytes`` is higher than ever before.
    """

    def __init__(self, granule: int = 1, on_peak: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.granule, self.on_peak = granule, on_peak
        self.bytes = self.peak = self.marked = 0
        self._marked: set[int] = set()
        self.events: list[int] = []
        self._made = 0
        self._sizes: dict[int, int] = {}
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = {storage._cdata for storage in _storages((args, kwargs))}
        out = func(*args, **kwargs)
        for storage in _storages(out):
            if storage._cdata not in inputs and storage._cdata not in self._alive:
                self._add(storage)
        return out

    def mark(self) -> None:
        """Make ``marked`` count the bytes of the storages that are alive now, as long as they live."""
        self._marked, self.marked = set(self._alive), self.bytes

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, -(-storage.nbytes() // self.granule) * self.granule
        self._made += 1
        number = self._made
        self.events.append(size)

        def freed(_: object) -> None:
            self._alive.pop(key, None)
            self.events.append(-number)
            size = self._sizes.pop(key, 0)
            self.bytes -= size
            if key in self._marked:
                self._marked.discard(key)
                self.marked -= size

        self._alive[key], self._sizes[key] = weakref.ref(storage, freed), size
        self.bytes += size
        if self.bytes > self.peak:
            self.peak = self.bytes
            if self.on_peak:
                self.on_peak()


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    """Return the storages behind the tensors in arguments or results: tensors, and lists and dictionaries of them."""
    if isinstance(tree, Tensor):
        if tree.layout == torch.strided:
            yield tree.untyped_storage()
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _storages(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _storages(item)
