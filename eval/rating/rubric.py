"""The rating instrument: domains, points of the scale, anchors, and the cues of the embedded rater.

Its format is described in docs/rubrics.md; :mod:`cbtrain.eval.rating.rubric_files` reads it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cbtrain.eval.rating.cue import Cue
from cbtrain.eval.rating.keying import Keying
from cbtrain.files import text_digest
from cbtrain.settings import renamed

LARGEST = 1_000_000


def _small(value: Any) -> Any:
    """Return ``value``. Raises ValueError on a number that no scale has."""
    if isinstance(value, int | float) and abs(value) > LARGEST:
        raise ValueError(f"must be at most {LARGEST:,} in size")
    return value


Point = int | float
BoundedPoint = Annotated[Point, BeforeValidator(_small)]

ADDED_LATER: dict[str, Any] = {"step": 1, "reversed": False, "weight": 1.0, "subscale": ""}
"""Fields that older versions did not have, and their values then: a rubric that leaves them so is the same rubric."""

MOST_POINTS = 101


def points_between(minimum: Point, maximum: Point, step: Point) -> tuple[Point, ...]:
    """Return the points of a scale, from the lowest."""
    count = round((maximum - minimum) / step) + 1
    return tuple(whole(round(minimum + index * step, 9)) for index in range(count))


def scale_words(minimum: Point, maximum: Point, step: Point) -> str:
    """Return ``0 to 6``, or ``1 to 5 in steps of 0.5``."""
    steps = "" if step == 1 else f" in steps of {step:g}"
    return f"{minimum:g} to {maximum:g}{steps}"


def whole(value: Any) -> Any:
    """Return a number without its point, if nothing stands behind it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Domain(BaseModel):
    """What is rated by one score. ``anchors`` describe points of the scale, not necessarily all of them. ``reversed``:
    more is worse, so the score is turned round before it counts. ``weight``: in the total. ``subscale``: the domain
    also counts in the mean of this part of the instrument. ``cues``: of the embedded rater only."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    description: str = ""
    anchors: dict[BoundedPoint, str] = Field(default_factory=dict)
    reversed: bool = False
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    subscale: str = ""
    cues: list[Cue] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """Let one of ``id`` and ``name`` stand for both."""
        if isinstance(values, dict) and isinstance(values.get("name"), str) and "id" not in values:
            return {**values, "id": id_of(values["name"])}
        if isinstance(values, dict) and isinstance(values.get("id"), str) and "name" not in values:
            return {**values, "name": values["id"].replace("_", " ").capitalize()}
        return values

    @field_validator("anchors")
    @classmethod
    def _whole_points(cls, anchors: dict[Point, str]) -> dict[Point, str]:
        return {whole(point): " ".join(text.split()) for point, text in anchors.items()}


def id_of(name: str) -> str:
    """Return the id of a domain that has a name only: its letters and digits in lower case, joined by ``_``."""
    return re.sub(r"\W+", "_", name.casefold()).strip("_") or name


class Rubric(BaseModel):
    """A scale from ``minimum`` to ``maximum`` in steps of ``step`` in every domain.

    ``cutoff``: the total from which on a session counts as competent, where the scale has one. ``cue_language``: the
    ISO 639-1 code of the language that the cues are written in."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    note: str = ""
    source: str = ""
    minimum: BoundedPoint = Field(allow_inf_nan=False)
    maximum: BoundedPoint = Field(allow_inf_nan=False)
    step: BoundedPoint = Field(1, gt=0, allow_inf_nan=False)
    cutoff: BoundedPoint | None = None
    # Ratings by a judge do not depend on it, so it is no part of a rubric's digest.
    cue_language: str = Field("en", exclude=True)
    domains: list[Domain] = Field(min_length=1, validation_alias=renamed("domains", "items"))

    @field_validator("minimum", "maximum", "step", "cutoff")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return whole(value)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The points of the scale, from the lowest."""
        return points_between(self.minimum, self.maximum, self.step)

    @cached_property
    def ids(self) -> list[str]:
        return [domain.id for domain in self.domains]

    @cached_property
    def keying(self) -> Keying:
        """How its scores become a total."""
        turned = {domain.id: self.minimum + self.maximum for domain in self.domains if domain.reversed}
        return Keying(turned, {domain.id: domain.weight for domain in self.domains if domain.weight != 1})

    @cached_property
    def subscales(self) -> dict[str, list[str]]:
        """The ids of the domains of each sub-scale."""
        found: dict[str, list[str]] = {}
        for domain in self.domains:
            if domain.subscale:
                found.setdefault(domain.subscale, []).append(domain.id)
        return found

    @property
    def total_range(self) -> tuple[float, float]:
        """The lowest and the highest total."""
        weights = sum(domain.weight for domain in self.domains)
        return whole(self.minimum * weights), whole(self.maximum * weights)

    @cached_property
    def digest(self) -> str:
        """A digest of everything but the language of the cues; of a rubric that uses nothing that was added since, the
        one that older versions had."""
        return text_digest(json.dumps(self.identity(), sort_keys=True))

    def identity(self) -> dict[str, Any]:
        """Return the rubric as plain data, without what says nothing (:data:`ADDED_LATER`)."""
        plain = _without_later(self.model_dump(mode="json"))
        plain["domains"] = [_without_later(domain) for domain in plain["domains"]]
        return plain

    def problems(self) -> list[str]:
        """Return what does not fit together, each with its place."""
        if self.minimum >= self.maximum:
            return [f"maximum: must be above minimum ({self.minimum:g})"]
        steps = (self.maximum - self.minimum) / self.step
        if not math.isclose(steps, round(steps), abs_tol=1e-9) or steps + 1 > MOST_POINTS:
            what = f"{self.minimum:g} to {self.maximum:g} is not a whole number of steps of {self.step:g}"
            return [f"step: {what}" if steps + 1 <= MOST_POINTS else f"step: more than {MOST_POINTS} points"]
        found = [problem for place, domain in enumerate(self.domains) for problem in self._of_domain(place, domain)]
        found += _twice("id", self.ids) + _twice("name", [domain.name for domain in self.domains])
        low, high = self.total_range
        if self.cutoff is not None and not low <= self.cutoff <= high:
            found.append(f"cutoff: {self.cutoff:g} is no total (they go from {low:g} to {high:g})")
        if same := set(self.subscales) & {*self.ids, "total"}:
            found.append(f"subscale {sorted(same)[0]!r} is called like a domain or the total")
        return found

    def _of_domain(self, place: int, domain: Domain) -> list[str]:
        where = f"domains.{place} ({domain.id})"
        wrong = [f"{point:g}" for point in domain.anchors if point not in self.points]
        found = [f"{where}: anchors at {', '.join(wrong)}, no point of the scale ({self.scale_words})"] if wrong else []
        found += [f"{where}: the anchor at {point:g} is empty" for point, text in domain.anchors.items() if not text]
        if domain.id in RESERVED:
            found.append(f"{where}: {domain.id!r} is a column of every table of scores; take another id")
        return found

    @property
    def scale_words(self) -> str:
        """``0 to 6``, ``1 to 5 in steps of 0.5``."""
        return scale_words(self.minimum, self.maximum, self.step)


RESERVED = frozenset(
    {"session_id", "arm", "patient", "seed", "judge", "repeat", "status", "total", "session", "simulator"}
)


def _without_later(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ADDED_LATER or value != ADDED_LATER[key]}


def _twice(what: str, names: Sequence[str]) -> list[str]:
    return [f"two domains have the {what} {name!r}" for name in dict.fromkeys(names) if names.count(name) > 1]
