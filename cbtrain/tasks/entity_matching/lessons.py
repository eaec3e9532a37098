"""What a small base model learns before the task: to read titles of products, and to compare them.

Goods and brands are others than the task's, and nothing says what is asked: there are records, as the task's prompts
write them, and no question. Three kinds of lessons, since one answer for each pair teaches a model from nothing too
little: which words are in a record (an answer for every word, soon learnt), whether a few words on each product agree,
and whether two whole titles do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from cbtrain.tasks.entity_matching.catalogue import UNITS, Family, Product, make_families
from cbtrain.tasks.entity_matching.generate import OTHERS, titles_of, two_products
from cbtrain.tasks.entity_matching.pair import LABELS
from cbtrain.tasks.entity_matching.prompts import RECORDS
from cbtrain.tasks.entity_matching.spelling import recased, written

MEMBERS, WORDS, WHOLE = "members", "words", "whole"
SHARES = {MEMBERS: 0.4, WORDS: 0.2, WHOLE: 0.4}
"""Kinds of lessons and their shares."""

OF_OTHERS, ASKED = 4, 14
"""Of a lesson in members: words of another product, and all words that are asked for."""

PIECE = re.compile(r"[a-z]+|[0-9]+")
"""What the base's tokenizer takes for one token."""

ORDER = ("brand", "line", "code", "kind", *UNITS, "colour")

FAMILIES = 5000
"""Families of products that lessons are about."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question and its answer: Yes or No, or words with Yes or No after each. ``counted`` are the places (begin, end)
    in the answer that are learnt."""

    kind: str
    question: str
    answer: str
    counted: tuple[tuple[int, int], ...]


def lessons(seed: int) -> Iterator[Lesson]:
    """Yield lessons without end, equal for equal ``seed``."""
    random = Random(seed)
    families = make_families(FAMILIES, OTHERS.kinds, OTHERS.brands, random)
    while True:
        (kind,) = random.choices(list(SHARES), list(SHARES.values()))
        yield _members(families, random) if kind == MEMBERS else _pair(kind, families, random)


def _two(families: list[Family], random: Random) -> tuple[bool, Product, Product]:
    same = random.random() < 0.5
    left, right = two_products("same" if same else random.choice(("hard", "hard", "easy")), families, random)
    return same, left, right


def _pair(kind: str, families: list[Family], random: Random) -> Lesson:
    same, left, right = _two(families, random)
    titles = titles_of(left, right, random) if kind == WHOLE else _words(left, right, random)
    answer = LABELS[int(same)]
    return Lesson(kind, RECORDS.format(left=titles[0], right=titles[1]), answer, ((0, len(answer)),))


def _members(families: list[Family], random: Random) -> Lesson:
    """Return a lesson in which words are in a record: some of it, of another title and of another product."""
    _, left, right = _two(families, random)
    title, other = titles_of(left, right, random)
    _, third, _ = _two(families, random)
    held = PIECE.findall(title.lower())
    foreign = PIECE.findall(titles_of(third, third, random)[0].lower())
    asked = held + PIECE.findall(other.lower()) + random.sample(foreign, min(OF_OTHERS, len(foreign)))
    random.shuffle(asked)
    answer, counted = "", list[tuple[int, int]]()
    for word in asked[:ASKED]:
        said = LABELS[int(word in held)]
        answer += f"{word} {said} "
        counted.append((len(answer) - 1 - len(said), len(answer) - 1))
    return Lesson(MEMBERS, f"Entity 1: {title}.", answer.rstrip(), tuple(counted))


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
