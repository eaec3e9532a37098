"""Choose some of many patients: spread over columns, the same for the same seed, more of them without losing any.

All patients are put into one order, of which the first ``count`` are taken. In an order each patient is one whose
values have been taken least so far: first column by column (the marginals), then all columns together; a hash of seed
and id decides among equals. Of many such orders that is kept whose beginnings, whatever their length, are most even.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from cbtrain.errors import UserError, nearest
from cbtrain.patients.case import COLUMNS, Case
from cbtrain.patients.config import Column
from cbtrain.patients.faults import named

MOST_TRIES, MOST_STEPS = 50, 100_000
"""Orders that are compared, and pairs of patients looked at for all of them: a third of a second."""


def choose(cases: Sequence[Case], count: int, stratify: Sequence[Column], seed: int) -> list[Case]:
    """Return ``count`` of ``cases`` in the order in which they are chosen, spread over the columns ``stratify``.

    Raises UserError if there are fewer, or if one lacks a column.
    """
    if count > len(cases):
        raise UserError(f"{count} patients wanted, and there are {len(cases)}", where="count", hint="Lower it.")
    for column in stratify:
        if lacking := [case.id for case in cases if getattr(case, column) is None]:
            hint = f"Give each patient one ({', '.join(COLUMNS[column])}), or leave {column} out of stratify."
            raise UserError(f"{named(lacking)}: no {column}", where="stratify", hint=hint)
    orders = (_order(cases, stratify, f"{seed}|{turn}") for turn in range(_tries(len(cases)) if stratify else 1))
    return min(orders, key=lambda order: _unevenness(order, stratify))[:count]


def _tries(size: int) -> int:
    """How many orders of ``size`` patients are compared: the time for one grows with the square of their number."""
    return max(1, min(MOST_TRIES, MOST_STEPS // (size * size)))


def _order(cases: Sequence[Case], columns: Sequence[Column], salt: str) -> list[Case]:
    left = sorted(cases, key=lambda case: (_rank(case, salt), case.id))
    single: Counter[tuple[str, str]] = Counter()
    together: Counter[tuple[str, ...]] = Counter()
    order: list[Case] = []
    while left:
        least = [min(single[column, _value(case, column)] for case in left) for column in columns]
        best = min(left, key=lambda case: _cost(case, columns, least, single, together))
        left.remove(best)
        order.append(best)
        single.update((column, _value(best, column)) for column in columns)
        together[_values(best, columns)] += 1
    return order


def _cost(
    case: Case,
    columns: Sequence[Column],
    least: Sequence[int],
    single: Counter[tuple[str, str]],
    together: Counter[tuple[str, ...]],
) -> tuple[int, int]:
    """How much more often than the ``least`` taken ones a patient's values were taken, and all of them together."""
    more = [single[column, _value(case, column)] - low for column, low in zip(columns, least, strict=True)]
    return sum(excess * excess for excess in more), together[_values(case, columns)]


def _unevenness(order: Sequence[Case], columns: Sequence[Column]) -> float:
    """Return the sum, over the beginnings of an order, of squared distances of counts from equal ones."""
    total = 0.0
    for column in columns:
        counts = dict.fromkeys((_value(case, column) for case in order), 0)
        for taken, case in enumerate(order, 1):
            counts[_value(case, column)] += 1
            total += sum((count - taken / len(counts)) ** 2 for count in counts.values())
    return total


def pick(cases: Sequence[Case], only: Sequence[str]) -> list[Case]:
    """Return the patients with the ids ``only``, in its order. Raises UserError on an unknown id, and on one that comes
    twice."""
    by_id = {case.id: case for case in cases}
    for name in only:
        if name not in by_id:
            raise UserError(f"no patient {name!r}", where="only", hint=nearest(name, by_id))
    twice = [name for name, times in Counter(only).items() if times > 1]
    if twice:
        raise UserError(f"{twice[0]!r} comes twice", where="only", hint="Name each patient once.")
    return [by_id[name] for name in only]


def _rank(case: Case, salt: str) -> bytes:
    return blake2b(f"{salt}|{case.id}".encode(), digest_size=8).digest()


def _value(case: Case, column: Column) -> str:
    return str(getattr(case, column))


def _values(case: Case, columns: Sequence[Column]) -> tuple[str, ...]:
    return tuple(_value(case, column) for column in columns)
