"""Judges that are people, by their names."""

from __future__ import annotations

from collections.abc import Iterable

PERSON = "human: "
"""A judge whose name begins so is a person."""

ADJUDICATED = f"{PERSON}adjudicated"
"""The judge whose scores are people's means, with a settled score where people differed by much. Derived from the other
people's ratings, so it is never compared with them as if it were one more rater."""


def is_person(judge: str) -> bool:
    """Return whether ``judge`` is a person who rated: not what was settled between people."""
    return judge.startswith(PERSON) and judge != ADJUDICATED


def people_of(judges: Iterable[str]) -> list[str]:
    return [judge for judge in judges if is_person(judge)]


def person(name: str) -> str:
    """Return the judge that a person called ``name`` is."""
    return PERSON + name
