"""How merchants write the title of a product: what they leave out, shorten, turn round, convert and misspell."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from cbtrain.tasks.entity_matching.catalogue import COLOURS, KINDS, UNITS, Product

LEAVE_OUT = {"brand": 0.1, "line": 0.3, "kind": 0.25, "code": 0.1, "colour": 0.5}
"""How often a merchant leaves out a property; a size: :data:`LEAVE_OUT_SIZE`."""
LEAVE_OUT_SIZE = 0.4

TYPO, TURNED, UPPER, LOWER = 0.08, 0.35, 0.15, 0.15
"""How often a title has a misspelt word, is in another order, in capitals or in small letters."""


def title_of(product: Product, shown: Collection[str], random: Random) -> str:
    """Return a title of ``product``. The properties ``shown`` (a size by its unit) are surely in it, others may be.

    A typo never touches what has digits: a title says nothing wrong.
    """
    parts = [(name, written(product, name, random)) for name in _kept(product, shown, random)]
    if random.random() < TURNED:
        random.shuffle(parts)
    words = " ".join(text for _, text in parts).split(" ")
    if random.random() < TYPO:
        _misspell(words, random)
    return recased(" ".join(words), random)


def recased(title: str, random: Random) -> str:
    """Return ``title`` in capitals, in small letters, or as it is."""
    manner = random.random()
    if manner < UPPER:
        return title.upper()
    return title.lower() if manner < UPPER + LOWER else title


def _kept(product: Product, shown: Collection[str], random: Random) -> list[str]:
    """Return the properties that are written, in the usual order; never fewer than three."""
    units = [unit for unit, _ in product.sizes]
    names = ["brand", "line", "code", "kind", *units, "colour"]
    drawn = {name: random.random() < LEAVE_OUT.get(name, LEAVE_OUT_SIZE) for name in names}
    kept = [name for name in names if name in shown or not drawn[name]]
    if len(kept) < 3:
        kept = [name for name in names if name in shown or name in ("brand", "code", "kind")]
    return kept


def written(product: Product, name: str, random: Random) -> str:
    """Return one property of ``product`` as a merchant writes it; a size is named by its unit."""
    if name == "code":
        letters, number = product.code
        return f"{letters}{random.choice(('', '', '-', ' '))}{number}"
    if name == "kind":
        return random.choice(KINDS[product.kind].nouns)
    if name == "colour":
        return random.choice(COLOURS[product.colour])
    if name in UNITS:
        return _size(dict(product.sizes)[name], name, random)
    text: str = getattr(product, name)
    return text


def _size(value: int, name: str, random: Random) -> str:
    """Return a value with its unit, some of them converted to the larger one."""
    unit = UNITS[name]
    if unit.larger and value * 10 % unit.factor == 0 and value >= unit.factor and random.random() < 0.4:
        return f"{value / unit.factor:g}{random.choice(('', ' '))}{random.choice(unit.larger)}"
    return f"{value}{random.choice(('', ' '))}{random.choice(unit.spellings)}"


def _misspell(words: list[str], random: Random) -> None:
    """Swap two letters inside one of ``words``, or drop one; only words of five letters and more."""
    places = [place for place, word in enumerate(words) if word.isalpha() and len(word) >= 5]
    if not places:
        return
    place = random.choice(places)
    word, at = words[place], random.randrange(1, len(words[place]) - 2)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    words[place] = swapped if random.random() < 0.5 else word[:at] + word[at + 1 :]
