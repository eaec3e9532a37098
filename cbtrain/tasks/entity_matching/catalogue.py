"""Invented products: brands, kinds of goods, their lines, models, sizes and colours. Nothing of it is sold anywhere.

A *family* is what one brand sells under one line: its models resemble each other, and differ in the number of the
model, in a size, or in the colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

BRANDS = (
    "Velmora Ostrin Quandrel Brevinck Calduna Dorvessa Elmquar Fendaro Galtivo Hestrune Ilvanta Jorkell Kelvaro "
    "Lumistra Mordane Nexalin Orvello Pandrix Quillora Rastiva Selvanto Tarquell Umbrisa Vostrani Wendrake Xalpera "
    "Yorvini Zentrava Aldrune Borvanta Cresmond Duvalix Estrano Farwinde Grelmar Halvessa"
).split()

LINES = (
    "Trail Nano Summit Aero Prime Urban Fusion Nova Pulse Vista Terra Apex Echo Flex Orbit Delta Nordic Metro Solar "
    "Breeze"
).split()

COLOURS = {
    "black": ("black", "blk"),
    "white": ("white", "wht"),
    "red": ("red",),
    "blue": ("blue",),
    "green": ("green", "grn"),
    "silver": ("silver", "slv"),
    "grey": ("grey", "gray"),
    "orange": ("orange",),
}
"""Colours, each with its spellings."""

PREFIXES = [first + second for first in "BCDFGKLNPRSTVWXZ" for second in "AEKLRSTXZ" if first != second]
"""Letters at the beginning of a model's number. No unit is among them: ``ml 240`` is no model."""

CODES = [*range(100, 1000, 10), *range(1000, 10_000, 500)]


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit with its spellings, and with ``larger`` another one, which is ``factor`` times it."""

    spellings: tuple[str, ...]
    larger: tuple[str, ...] = ()
    factor: int = 1


UNITS = {
    "GB": Unit(("GB", "gigabyte"), ("TB", "terabyte"), 1000),
    "ml": Unit(("ml",), ("l", "litre"), 1000),
    "g": Unit(("g", "gram"), ("kg", "kilo"), 1000),
    "W": Unit(("W", "watt"), ("kW",), 1000),
    "mm": Unit(("mm",), ("cm",), 10),
    "lm": Unit(("lm", "lumen")),
    "mAh": Unit(("mAh",)),
    "V": Unit(("V", "volt")),
    "Hz": Unit(("Hz", "hertz")),
    "dB": Unit(("dB",)),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of goods: its ``nouns`` mean the same; ``sizes`` by unit are the values that a model may have."""

    nouns: tuple[str, ...]
    sizes: tuple[tuple[str, tuple[int, ...]], ...]


KINDS = {
    "lamp": Kind(
        ("headlamp", "head torch", "head lamp"), (("lm", (150, 250, 450, 600, 900)), ("g", (60, 90, 120, 150)))
    ),
    "drive": Kind(
        ("portable SSD", "external SSD", "SSD drive"), (("GB", (250, 500, 1000, 2000, 4000)), ("g", (40, 60, 80)))
    ),
    "kettle": Kind(
        ("electric kettle", "kettle", "water boiler"),
        (("ml", (800, 1000, 1500, 1700, 2000)), ("W", (1200, 1500, 2000, 2400))),
    ),
    "drill": Kind(("cordless drill", "drill driver", "drill"), (("V", (12, 14, 18, 36)), ("mm", (10, 13, 16)))),
    "bottle": Kind(
        ("insulated bottle", "thermos flask", "vacuum flask"),
        (("ml", (350, 500, 750, 1000)), ("g", (180, 240, 300, 350))),
    ),
    "monitor": Kind(("monitor", "display", "screen"), (("mm", (550, 610, 690, 810)), ("Hz", (60, 75, 120, 144, 240)))),
    "bank": Kind(
        ("power bank", "portable charger", "battery pack"),
        (("mAh", (5000, 8000, 10000, 20000)), ("W", (10, 18, 30, 65))),
    ),
    "heater": Kind(("fan heater", "heater", "room heater"), (("W", (750, 1000, 1500, 2000)), ("dB", (38, 42, 48, 55)))),
    "scale": Kind(
        ("kitchen scale", "scales", "food scale"), (("g", (3000, 5000, 8000, 10000)), ("mm", (150, 180, 210)))
    ),
    "speaker": Kind(
        ("wireless speaker", "speaker", "soundbox"), (("W", (5, 12, 20, 40, 60)), ("mAh", (1800, 2600, 3600, 5200)))
    ),
}
"""Kinds of goods by name."""


@dataclass(frozen=True, slots=True)
class Product:
    """One model in one size and colour. ``sizes`` are ``(unit, value)``; ``code`` is letters and number of the
    model."""

    id: int
    brand: str
    line: str
    kind: str
    code: tuple[str, int]
    sizes: tuple[tuple[str, int], ...]
    colour: str

    def differs_in(self, other: Product) -> list[str]:
        """Return the names of the properties in which the two differ; a size is named by its unit."""
        names = ["brand", "line", "kind", "code", "colour"]
        own, others = dict(self.sizes), dict(other.sizes)
        units = [unit for unit in own if own[unit] != others.get(unit, own[unit])]
        return [name for name in names if getattr(self, name) != getattr(other, name)] + units


Family = tuple[Product, ...]

SIBLINGS = 4
"""Products of a family."""


def make_families(count: int, kinds: tuple[str, ...], brands: tuple[str, ...], random: Random) -> list[Family]:
    """Return ``count`` families of goods of these ``kinds`` and ``brands``. No two have brand, line and kind in common
    while there are enough of them; products are numbered through."""
    places = [(brand, line, kind) for brand in brands for line in LINES for kind in kinds]
    random.shuffle(places)
    families = []
    for number in range(count):
        brand, line, kind = places[number % len(places)]
        families.append(_family(number * SIBLINGS, brand, line, kind, random))
    return families


def _family(first: int, brand: str, line: str, kind: str, random: Random) -> Family:
    """Return products of which each differs from an earlier one in code, in one size, or in its colour."""
    prefix = random.choice(PREFIXES)
    sizes = tuple((unit, random.choice(values)) for unit, values in KINDS[kind].sizes)
    colour = random.choice(sorted(COLOURS))
    products = [Product(first, brand, line, kind, (prefix, random.choice(CODES)), sizes, colour)]
    while len(products) < SIBLINGS:
        made = _varied(random.choice(products), first + len(products), random)
        if all(made.differs_in(product) for product in products):
            products.append(made)
    return tuple(products)


def _varied(product: Product, number: int, random: Random) -> Product:
    code, sizes, colour = product.code, dict(product.sizes), product.colour
    change = random.random()
    if change < 0.5:
        code = (code[0], random.choice([other for other in CODES if other != code[1]]))
        if random.random() < 0.3:  # a larger model is often larger in something
            unit, values = random.choice(KINDS[product.kind].sizes)
            sizes[unit] = random.choice(values)
    elif change < 0.8:
        unit, values = random.choice(KINDS[product.kind].sizes)
        sizes[unit] = random.choice([value for value in values if value != sizes[unit]])
    else:
        colour = random.choice([other for other in sorted(COLOURS) if other != colour])
    return Product(number, product.brand, product.line, product.kind, code, tuple(sizes.items()), colour)
