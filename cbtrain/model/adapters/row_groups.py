"""Which rows of a forward pass belong to which adapter, and what that means at a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Group = tuple[str | None, int]
"""An adapter's name, or None for the base, and a number of consecutive rows."""

BULK_ROWS = 64
"""So many rows of one adapter are computed by themselves, as in a prompt. The rows of smaller groups share their
products: a call costs more than the ranks of other adapters."""

WASTE = 2
"""Rows share their products while these compute at most so many times the ranks of the adapters that take part."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The adapters mounted at a module: ``stacked`` with their ranks, in the order of the stack; those ``adapting`` the
    output of the base; those ``replacing`` the base. Many modules share one layout, and then the work it gives."""

    stacked: tuple[tuple[str, int], ...]
    adapting: frozenset[str]
    replacing: frozenset[str]


@dataclass(frozen=True, slots=True)
class Product:
    """``rows`` (None: all) times the ranks ``first`` to ``last`` of a stack. ``foreign``, bool ``[rows, ranks]``, says
    which ranks are of an adapter that is not the row's; None if there are none."""

    rows: slice | None
    first: int
    last: int
    foreign: Tensor | None


@dataclass(frozen=True, slots=True)
class Work:
    """What a module does in a forward pass. ``parts``: consecutive rows with the adapter that replaces the base, or
    None for the base; None if no adapter replaces it. Then ``products`` are added, and rows of each adapter in
    ``adapted`` are adapted."""

    parts: tuple[tuple[slice, str | None], ...] | None
    products: tuple[Product, ...]
    adapted: tuple[tuple[slice, str], ...]


@dataclass(frozen=True, slots=True)
class _Range:
    name: str | None
    begin: int
    end: int | None
    """None: to the last row."""

    @property
    def rows(self) -> slice:
        return slice(self.begin, self.end)

    @property
    def bulk(self) -> bool:
        return self.end is None or self.end - self.begin >= BULK_ROWS


class RowGroups:
    """The groups of a forward pass's rows. ``total`` is the number of rows; None if one group has them all (-1).

    Raises ValueError on other negative numbers.
    """

    def __init__(self, groups: Sequence[Group], device: torch.device) -> None:
        self.device = device
        self.total: int | None = None
        self._work: dict[Layout, Work] = {}
        self._ranges: list[_Range] = []
        if len(groups) == 1 and groups[0][1] == -1:
            self._ranges.append(_Range(groups[0][0], 0, None))
            return
        at = 0
        for name, rows in groups:
            if rows < 0:
                raise ValueError(f"a group of {rows} rows; -1 stands for all rows, of a single group")
            if self._ranges and self._ranges[-1].name == name:
                self._ranges[-1] = _Range(name, self._ranges[-1].begin, at + rows)
            elif rows:
                self._ranges.append(_Range(name, at, at + rows))
            at += rows
        self.total = at

    def work(self, layout: Layout) -> Work:
        """Return what a module with the adapters of ``layout`` does; worked out once for all modules with it."""
        work = self._work.get(layout)
        if work is None:
            work = self._work[layout] = Work(
                self._parts(layout.replacing),
                tuple(self._products(layout)),
                tuple((part.rows, part.name) for part in self._ranges if part.name in layout.adapting),
            )
        return work

    def _parts(self, replacing: frozenset[str]) -> tuple[tuple[slice, str | None], ...] | None:
        if not any(part.name in replacing for part in self._ranges):
            return None
        parts: list[_Range] = []
        for part in self._ranges:
            name = part.name if part.name in replacing else None
            begin = parts.pop().begin if parts and parts[-1].name is name is None else part.begin
            parts.append(_Range(name, begin, part.end))
        return tuple((part.rows, part.name) for part in parts)

    def _products(self, layout: Layout) -> Iterator[Product]:
        ranks: dict[str | None, tuple[int, int]] = {}
        at = 0
        for name, rank in layout.stacked:
            ranks[name] = at, at + rank
            at += rank
        for stretch in self._stretches(ranks):
            active = {part.name: ranks[part.name] for part in stretch}
            first, last = min(begin for begin, _ in active.values()), max(end for _, end in active.values())
            wasteful = last - first > WASTE * sum(end - begin for begin, end in active.values())
            if len(stretch) == 1 or wasteful:
                for part in stretch:
                    yield Product(self._rows(part.begin, part.end), *ranks[part.name], None)
                continue
            rows = self._rows(stretch[0].begin, stretch[-1].end)
            yield Product(rows, first, last, self._foreign(stretch, active, first, last))

    @torch.inference_mode(False)
    def _foreign(
        self, stretch: Sequence[_Range], ranks: Mapping[str | None, tuple[int, int]], first: int, last: int
    ) -> Tensor:
        begin, end = stretch[0].begin, stretch[-1].end
        assert end is not None  # a group that has all rows is alone
        foreign = torch.ones(end - begin, last - first, dtype=torch.bool)
        for part in stretch:
            assert part.end is not None
            low, high = ranks[part.name]
            foreign[part.begin - begin : part.end - begin, low - first : high - first] = False
        return foreign.to(self.device)

    def _stretches(self, ranks: Mapping[str | None, tuple[int, int]]) -> Iterator[list[_Range]]:
        """Yield ranges of stacked adapters that share their products, with at most few other rows between them."""
        stretch: list[_Range] = []
        for part in self._ranges:
            if part.bulk and stretch:
                yield stretch
                stretch = []
            if part.name in ranks:
                if part.bulk:
                    yield [part]
                else:
                    stretch.append(part)
        if stretch:
            yield stretch

    def _rows(self, begin: int, end: int | None) -> slice | None:
        return None if begin == 0 and end == self.total else slice(begin, end)
