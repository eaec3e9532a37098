"""What a small base model learns before the task: to read titles of products, and to compare them.

Goods and brands are others than the task's, and nothing says what is asked: there are two records, as the task's
prompts write them, and no question. Pairs of a few words come among whole pairs: by them comparing is learnt soonest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from cbtrain.tasks.entity_matching.catalogue import UNITS, Family, Product, make_families
from cbtrain.tasks.entity_matching.generate import OTHERS, titles_of, two_products
from cbtrain.tasks.entity_matching.pair import LABELS
from cbtrain.tasks.entity_matching.prompts import RECORDS
from cbtrain.tasks.entity_matching.spelling import recased, written

WORDS, WHOLE = "words", "whole"
SHARES = {WORDS: 0.6, WHOLE: 0.4}
"""Kinds of lessons and their shares."""

ORDER = ("brand", "line", "code", "kind", *UNITS, "colour")

FAMILIES = 5000
"""Families of products that lessons are about."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question and its answer, Yes or No."""

    kind: str
    question: str
    answer: str


def lessons(seed: int) -> Iterator[Lesson]:
    """Yield lessons without end, equal for equal ``seed``."""
    random = Random(seed)
    families = make_families(FAMILIES, OTHERS.kinds, OTHERS.brands, random)
    while True:
        (kind,) = random.choices(list(SHARES), list(SHARES.values()))
        yield _lesson(kind, families, random)


def _lesson(kind: str, families: list[Family], random: Random) -> Lesson:
    same = random.random() < 0.5
    left, right = two_products("same" if same else random.choice(("hard", "hard", "easy")), families, random)
    titles = titles_of(left, right, random) if kind == WHOLE else _words(left, right, random)
    return Lesson(kind, RECORDS.format(left=titles[0], right=titles[1]), LABELS[int(same)])


def _words(left: Product, right: Product, random: Random) -> tuple[str, str]:
    """Return a few words on each: one property of both, in which they differ if they differ in any, and up to two
    more."""
    units = [unit for unit, _ in left.sizes]
    name = random.choice(left.differs_in(right) or ["brand", "line", "code", "code", "colour", *units])
    return _few(left, name, random), _few(right, name, random)


def _few(product: Product, name: str, random: Random) -> str:
    names = ["brand", "line", "code", "kind", "colour", *(unit for unit, _ in product.sizes)]
    shown = {name, *random.sample(names, random.choice((0, 0, 1, 1, 2)))}
    return recased(" ".join(written(product, each, random) for each in ORDER if each in shown), random)
