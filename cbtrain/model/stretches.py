"""Rows that are computed some at a time."""

from __future__ import annotations

from collections.abc import Iterator


def stretches(rows: int, at_once: int, is_meta: bool = False) -> Iterator[slice]:
    """Yield slices of the ``rows``, ``at_once`` in each. On the meta device, where only memory is counted, all but the
    last are alike: the first two stand for them."""
    begins = range(0, rows, at_once)
    for begin in (*begins[:2], *begins[2:][-1:]) if is_meta else begins:
        yield slice(begin, min(begin + at_once, rows))
