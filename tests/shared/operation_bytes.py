"""Bytes of memory that PyTorch's operations and Triton's programs move, counted while they run."""

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FEW = ("gather", "scatter_add_", "index")
"""Operations that touch only as many numbers as they have indices."""


class OperationBytes(TorchDispatchMode):
    """``total`` is what the operations read and write, each tensor once in each; views move nothing."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name, schema = func.overloadpacket.__name__, func._schema
        is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in schema.returns)
        if is_view or name.startswith(("empty", "new_empty", "detach")):
            return out
        given = [*zip(schema.arguments, args, strict=False)]
        given += [(each, kwargs[each.name]) for each in schema.arguments if kwargs and each.name in kwargs]
        read = [value for each, value in given if not each.is_out and not (name == "copy_" and each.name == "self")]
        touched = [one for one in (*tree_leaves(read), *tree_leaves(out)) if isinstance(one, torch.Tensor)]
        if name.startswith(FEW):
            touched = [min(touched, key=torch.Tensor.numel)]
        self.total += sum(map(_bytes, touched))
        return out


def _bytes(tensor):
    numbers = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        numbers *= size if stride else 1
    return numbers * tensor.element_size()


class ProgramBytes:
    """``total`` is what the programs of launches in Triton's interpreter load and store. What one program loads again
    counts again; what several programs load counts once, as caches are made for that."""

    def __init__(self):
        from triton.runtime.interpreter import InterpreterBuilder

        self.builder, self.programs = InterpreterBuilder, {}
        self.load, self.store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def __enter__(self):
        def load(builder, pointers, mask, *rest):
            self._note("load", builder, pointers, mask)
            return self.load(builder, pointers, mask, *rest)

        def store(builder, pointers, value, mask, *rest):
            self._note("store", builder, pointers, mask)
            return self.store(builder, pointers, value, mask, *rest)

        self.builder.create_masked_load, self.builder.create_masked_store = load, store
        return self

    def __exit__(self, *_):
        self.builder.create_masked_load, self.builder.create_masked_store = self.load, self.store

    def _note(self, kind, builder, pointers, mask):
        size = pointers.get_element_ty().primitive_bitwidth // 8
        addresses = np.unique(np.broadcast_to(pointers.data, mask.data.shape)[mask.data])
        self.programs.setdefault((kind, size, tuple(builder.grid_idx)), []).append(addresses)

    @property
    def total(self):
        most = {}
        for (kind, size, _), addresses in self.programs.items():
            for address, count in zip(*np.unique(np.concatenate(addresses), return_counts=True), strict=True):
                key = kind, size, int(address)
                most[key] = max(most.get(key, 0), int(count))
        return sum(size * count for (_, size, _), count in most.items())
