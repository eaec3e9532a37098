"""Generate pairs of invented products: three parts that share no product, equal to the byte for equal settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from cbtrain.errors import UserError
from cbtrain.tasks.entity_matching.catalogue import BRANDS, KINDS, Family, Product, make_families
from cbtrain.tasks.entity_matching.pair import Pair
from cbtrain.tasks.entity_matching.spelling import title_of

VERSION = 1
"""Raised whenever equal settings give other pairs than before."""

PARTS = {"train": 0.6, "validation": 0.2, "test": 0.2}
"""Parts and their shares of the pairs."""

PAIRS, POSITIVES, HARD = 5000, 0.25, 0.5
"""Defaults: pairs in all, share of positives, share of hard negatives among the negatives."""

FEWEST, MOST = 60, 1_000_000

PAIRS_PER_FAMILY = 8


@dataclass(frozen=True, slots=True)
class Goods:
    """Kinds of goods and brands that pairs are about."""

    kinds: tuple[str, ...]
    brands: tuple[str, ...]


TASK = Goods(tuple(KINDS)[:6], tuple(BRANDS[:24]))
"""The task's goods."""
OTHERS = Goods(tuple(KINDS)[6:], tuple(BRANDS[24:]))
"""Goods that a small base model may learn to read from: none of the task's kinds and brands are among them."""


def generate_pairs(
    count: int = PAIRS, seed: int = 0, *, positives: float = POSITIVES, hard: float = HARD, goods: Goods = TASK
) -> dict[str, list[Pair]]:
    """Return ``count`` pairs in three parts, by name (:data:`PARTS`), of which none has a product of another one.

    The share ``positives`` of them match; of the others, the share ``hard`` are of one family: the same brand, line and
    kind of goods, but another model, size or colour. The two titles of a negative both show a property in which the
    products differ; those of a positive contradict each other in none. Raises UserError on numbers that cannot be used.
    """
    if not FEWEST <= count <= MOST:
        raise UserError(f"{count:,} pairs", where="--pairs", hint=f"From {FEWEST} to {MOST:,}.")
    if not 0 < positives < 1:
        raise UserError(f"{positives:g} of the pairs match", where="--positives", hint="A share between 0 and 1.")
    if not 0 <= hard <= 1:
        raise UserError(f"{hard:g} of the negatives are hard", where="--hard", hint="A share from 0 to 1.")
    random = Random(seed)
    sizes = _shares(count, PARTS)
    families = {part: max(4, size // PAIRS_PER_FAMILY) for part, size in sizes.items()}
    made = make_families(sum(families.values()), goods.kinds, goods.brands, random)
    parts: dict[str, list[Pair]] = {}
    for part, size in sizes.items():
        own, made = made[: families[part]], made[families[part] :]
        parts[part] = _part(part, own, size, positives, hard, random)
    return parts


def _shares(count: int, shares: dict[str, float]) -> dict[str, int]:
    """Return ``count`` divided by ``shares``; the first part gets what rounding leaves."""
    sizes = {name: int(count * share) for name, share in shares.items()}
    first = next(iter(sizes))
    sizes[first] += count - sum(sizes.values())
    return sizes


def _part(
    name: str, families: Sequence[Family], size: int, positives: float, hard: float, random: Random
) -> list[Pair]:
    """Return ``size`` pairs of these families, in random order, none of them twice."""
    matching = round(size * positives)
    if not 0 < matching < size:
        which = "no pair matches" if matching <= 0 else "every pair matches"
        raise UserError(f"of {size:,} pairs ({name}) {which}", hint="Take more pairs, or another share.")
    resembling = round((size - matching) * hard)
    kinds = ["same"] * matching + ["hard"] * resembling + ["easy"] * (size - matching - resembling)
    random.shuffle(kinds)
    seen: set[tuple[str, str]] = set()
    pairs: list[Pair] = []
    while len(pairs) < size:
        kind = kinds[len(pairs)]
        left, right = two_products(kind, families, random)
        titles = titles_of(left, right, random)
        if titles in seen or titles[0] == titles[1]:
            continue
        seen.add(titles)
        number = f"{name}-{len(pairs):06d}-{left.id}-{right.id}"
        pairs.append(Pair(number, *titles, label=int(kind == "same"), hard=kind == "hard"))
    return pairs


def two_products(kind: str, families: Sequence[Family], random: Random) -> tuple[Product, Product]:
    """Return the products of a pair: ``same``, ``hard`` (two of one family) or ``easy`` (of two families)."""
    family = random.choice(families)
    left = random.choice(family)
    if kind == "same":
        return left, left
    if kind == "hard":
        return left, random.choice([product for product in family if product is not left])
    others = random.choice([other for other in _drawn(families, random) if other is not family])
    return left, random.choice(others)


def _drawn(families: Sequence[Family], random: Random) -> list[Family]:
    """Return two families at least one of which is another one than any given."""
    return random.sample(families, 2)


def titles_of(left: Product, right: Product, random: Random) -> tuple[str, str]:
    """Return a title of each. Where the two differ, one of the differences is written in both."""
    shown = left.differs_in(right)
    if shown:
        shown = [random.choice(shown)]
    return title_of(left, shown, random), title_of(right, shown, random)
