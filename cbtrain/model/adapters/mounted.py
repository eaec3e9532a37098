"""Several adapters over one decoder: each range of rows of a forward pass runs with its own, none of them merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from cbtrain.errors import UserError, nearest
from cbtrain.model.adapters.adapter import AdaptedModule, Adapter
from cbtrain.model.adapters.lora_linear import LoraLinear
from cbtrain.model.adapters.lora_stack import LoraStack, lora_part
from cbtrain.model.adapters.methods import load_adapter
from cbtrain.model.adapters.row_groups import Group, Layout, RowGroups
from cbtrain.model.decoder import Decoder

PASSES_KEPT = 64
"""Groups of rows whose work is remembered: consecutive decode steps have the same ones."""


class MountedAdapters:
    """Adapters over one decoder, by name. A forward pass runs each range of rows with one of them, or with the base.

    The decoder's own modules stay where they are except inside :meth:`rows`, so the base alone costs nothing more.
    Adapters are mounted after the decoder was moved to its device, and never while a forward pass runs. They are
    frozen, and without dropout. Plain LoRA is computed for all adapters together (:mod:`.lora_stack`) unless
    ``stacked`` is false; every other method for each group of rows by itself.
    """

    def __init__(self, decoder: Decoder, *, stacked: bool = True) -> None:
        self.decoder, self.stacked = decoder, stacked
        self._digests: dict[str, str] = {}
        self._modules: dict[str, _MountedModule] = {}
        self._layouts: dict[object, Layout] = {}
        self._passes: dict[tuple[Group, ...], _Pass] = {}
        self._current = _Current()

    @torch.inference_mode(False)
    def mount(self, name: str, folder: str | Path, *, force: bool = False) -> str:
        """Load the adapter in ``folder`` as ``name`` and return its digest. Raises UserError as
        :func:`~cbtrain.model.adapters.methods.load_adapter` does, and on a name in use."""
        self._require_new(name)
        return self.add(name, load_adapter(self.decoder, folder, force=force))

    @torch.inference_mode(False)
    def replace(self, name: str, folder: str | Path, *, force: bool = False) -> str:
        """Load the adapter in ``folder`` in place of ``name`` and return its digest. Raises UserError as :meth:`mount`;
        the old adapter stays then."""
        self._require_known(name)
        self._require_idle()
        return self.add(name, load_adapter(self.decoder, folder, force=force), replace=True)

    @torch.inference_mode(False)
    def add(self, name: str, adapter: Adapter, *, replace: bool = False) -> str:
        """Mount ``adapter``, which is the decoder's now, as ``name``: the decoder is the base again. Return its digest.

        Raises UserError on a name in use (unless it is to ``replace`` that adapter), on NaN, and if the decoder's
        adapter is another one. ``adapter`` itself must not be used any more.
        """
        if not replace:
            self._require_new(name)
        if self.decoder.adapter is not adapter:
            raise UserError("this adapter is not the one that the decoder has", where=f"adapter {name!r}")
        modules = adapter.detach()
        for module in modules.values():
            module.eval().requires_grad_(False)
        digest = _digest(modules)
        # All that can fail comes first.
        stacks: dict[str, LoraStack] = {}
        for path, module in modules.items():
            if self.stacked and type(module) is LoraLinear:
                before = self._modules[path].stack if path in self._modules else None
                others = [part for part in (before.parts if before else ()) if part[0] != name]
                stacks[path] = LoraStack([*others, lora_part(name, module, self.decoder.dtype)])
        if replace:
            self._forget(name)
        for path, module in modules.items():
            mounted = self._modules.get(path)
            if mounted is None:
                mounted = self._modules[path] = _MountedModule(self.decoder.get_submodule(path), path, self._current)
            if path in stacks:
                mounted.stack = stacks[path]
            else:
                mounted.by_name[name] = module
        self._digests[name] = digest
        self._arrange()
        return digest

    def drop(self, name: str) -> None:
        """Forget the adapter ``name``. Raises UserError if there is none of this name."""
        self._require_known(name)
        self._require_idle()
        self._forget(name)
        self._arrange()

    def _forget(self, name: str) -> None:
        del self._digests[name]
        for path, mounted in list(self._modules.items()):
            mounted.drop(name)
            if mounted.empty:
                del self._modules[path]

    def digest(self, name: str | None) -> str:
        """Return the digest of an adapter's values and settings, whatever its name and folder; "" for None, the base.
        Raises UserError on an unknown name."""
        if name is None:
            return ""
        self._require_known(name)
        return self._digests[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._digests)

    @contextmanager
    def rows(self, groups: Sequence[Group]) -> Iterator[None]:
        """Run the body with consecutive ranges of rows: (adapter name or None, number of rows).

        It covers ``decoder(ids, …)`` and ``decoder.logits(hidden)``, whose numbers of rows differ: open it once for
        each. One group for all rows may be given as ``[(name, -1)]``. Raises UserError on an unknown name, and
        ValueError on negative numbers; an adapted module raises ValueError if the rows do not add up.
        """
        self._require_idle()
        if self.decoder.adapter is not None:
            raise RuntimeError("the decoder has an adapter of its own")
        key = tuple(groups)
        prepared = self._passes.get(key) or self._prepare(key)
        self._current.groups = prepared.groups
        try:
            for siblings, leaf, _, mounted in prepared.swaps:
                siblings[leaf] = mounted
            yield
        finally:
            for siblings, leaf, base, _ in prepared.swaps:
                siblings[leaf] = base
            self._current.groups = None

    @torch.inference_mode(False)
    def _prepare(self, groups: tuple[Group, ...]) -> _Pass:
        names = {name for name, rows in groups if name is not None}
        for name in sorted(names):
            self._require_known(name)
        prepared = _Pass(RowGroups(groups, self.decoder.device))
        for path, mounted in self._modules.items():
            if not names.isdisjoint(mounted.names):
                parent, _, leaf = path.rpartition(".")
                # Setting the attribute does the same by way of checks that cost a decode step a hundredth.
                prepared.swaps.append((self.decoder.get_submodule(parent)._modules, leaf, mounted.base, mounted))
        if len(self._passes) >= PASSES_KEPT:
            self._passes.clear()
        self._passes[groups] = prepared
        return prepared

    def _arrange(self) -> None:
        """Give each module its layout, the same object where layouts are equal, and forget what was worked out."""
        self._passes.clear()
        self._layouts.clear()
        for mounted in self._modules.values():
            layout = mounted.find_layout()
            key = layout.stacked, layout.adapting, layout.replacing
            mounted.layout = self._layouts.setdefault(key, layout)

    def _require_new(self, name: str) -> None:
        self._require_idle()
        if name in self._digests:
            raise UserError(f"an adapter named {name!r} is mounted already", hint="Drop it first, or choose a name.")

    def _require_known(self, name: str) -> None:
        if name not in self._digests:
            hint = nearest(name, self._digests) if self._digests else "None is mounted."
            raise UserError(f"unknown adapter {name!r}", hint=hint)

    def _require_idle(self) -> None:
        if self._current.groups is not None:
            raise RuntimeError("a forward pass with adapters runs")


class _Pass:
    """``groups`` of rows, and the modules that take part, with the places that they take in the decoder."""

    def __init__(self, groups: RowGroups) -> None:
        self.groups = groups
        self.swaps: list[tuple[dict[str, nn.Module | None], str, nn.Module, _MountedModule]] = []


class _Current:
    """The ``groups`` of the forward pass that runs, for all mounted modules; None if none runs."""

    groups: RowGroups | None = None


class _MountedModule(nn.Module):
    """The module ``base`` at ``path`` with the adapters that change it: ``stack`` and others ``by_name``."""

    layout: Layout

    def __init__(self, base: nn.Module, path: str, current: _Current) -> None:
        super().__init__()
        self.base, self.path, self.current = base, path, current
        self.stack: LoraStack | None = None
        # With the base under None: nn.Module finds its modules among the attributes more slowly, and this is read for
        # each linear of each step.
        self.by_name: dict[str | None, nn.Module] = {None: base}

    @property
    def weight(self) -> Tensor:
        """The base's weight: the decoder finds its dtype and device by it."""
        return cast(Tensor, self.base.weight)

    @property
    def names(self) -> set[str]:
        return {*(name for name in self.by_name if name is not None), *(self.stack.names if self.stack else ())}

    @property
    def empty(self) -> bool:
        return self.stack is None and len(self.by_name) == 1

    def drop(self, name: str) -> None:
        self.by_name.pop(name, None)
        if self.stack is not None and name in self.stack.names:
            parts = [part for part in self.stack.parts if part[0] != name]
            self.stack = LoraStack(parts) if parts else None

    def token_losses(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return :meth:`cbtrain.model.head.Head.token_losses` of a head that all rows share. Raises ValueError if they
        do not."""
        assert self.current.groups is not None
        parts = self.current.groups.work(self.layout).parts
        if parts is None or len(parts) > 1:
            raise ValueError(f"rows of several adapters have no losses of {self.path} together")
        losses: Tensor = self.by_name[parts[0][1]].token_losses(hidden, labels)  # type: ignore[operator]
        return losses

    def find_layout(self) -> Layout:
        others = {name: module for name, module in self.by_name.items() if name is not None}
        adapting = frozenset(name for name, module in others.items() if isinstance(module, AdaptedModule))
        stacked = tuple(zip(self.stack.names, self.stack.ranks, strict=True)) if self.stack else ()
        return Layout(stacked, adapting, frozenset(others) - adapting)

    def forward(self, x: Tensor) -> Tensor:
        groups = self.current.groups
        assert groups is not None
        if groups.total is not None and groups.total != x.shape[0]:
            raise ValueError(f"groups of {groups.total} rows in all, but {self.path} has {x.shape[0]}")
        work = groups.work(self.layout)
        out: Tensor
        if work.parts is None:
            out = self.by_name[None](x)
        else:
            # Where dtypes differ (a head trained in fp32 on a bf16 base) the result has the wider one.
            parts = [self.by_name[name](x[rows]) for rows, name in work.parts]
            out = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.stack is not None:
            for product in work.products:
                self.stack.add(x, out, product)
        for rows, name in work.adapted:
            module = self.by_name[name]
            assert isinstance(module, AdaptedModule)
            out[rows] = module.adapt(x[rows], out[rows])
        return out


def _digest(modules: Mapping[str, nn.Module]) -> str:
    """Return 32 hexadecimal digits of all that the outputs of ``modules`` depend on, the base apart."""
    digest = blake2b(digest_size=16)
    for path, module in sorted(modules.items()):
        settings = module.settings() if isinstance(module, AdaptedModule) else ""
        digest.update(f"{path} {type(module).__qualname__} {settings}\n".encode())
        for name, parameter in module.named_parameters():
            if not name.startswith("base."):
                values = parameter.detach().contiguous().cpu()
                digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
                digest.update(values.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
