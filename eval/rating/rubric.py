"""The rating instrument: domains, anchors at every point, and the cues of the embedded rater."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cbtrain.errors import UserError, nearest
from cbtrain.settings import parse_yaml, refuse_booleans
from cbtrain.text.faults import first_fault


class Cue(BaseModel):
    """One thing to look for. A ``pattern`` is searched in the therapist's turns of one ``part`` of the session; a
    ``measure`` is computed by the cue rater and met inside ``[at_least, at_most]``."""

    model_config = ConfigDict(extra="forbid")

    name: str
    pattern: str | None = None
    part: Literal["whole", "opening", "closing"] = "whole"
    measure: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    weight: float = Field(1.0, gt=0)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern, re.IGNORECASE)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _one_kind(self) -> Cue:
        if (self.pattern is None) == (self.measure is None):
            raise ValueError("a cue has either a pattern or a measure")
        return self


class Domain(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    name: str
    description: str
    anchors: dict[int, str]
    cues: list[Cue] = Field(min_length=1)


class Rubric(BaseModel):
    """A scale from ``minimum`` to ``maximum`` in every domain, with an anchor at every point.

    ``cutoff``: the total from which on a session counts as competent, where the scale has one. ``cue_language``: the
    ISO 639-1 code of the language that the cues are written in."""

    model_config = ConfigDict(extra="forbid")

    name: str
    note: str
    source: str
    minimum: int
    maximum: int
    cutoff: int | None = None
    # Ratings by a judge do not depend on it, so it is no part of a rubric's digest.
    cue_language: str = Field("en", exclude=True)
    domains: list[Domain] = Field(min_length=1)

    @model_validator(mode="after")
    def _anchored(self) -> Rubric:
        points = set(range(self.minimum, self.maximum + 1))
        for domain in self.domains:
            if set(domain.anchors) != points:
                raise ValueError(f"{domain.id}: anchors are needed at exactly {min(points)} to {max(points)}")
        ids = [domain.id for domain in self.domains]
        if len(set(ids)) != len(ids):
            raise ValueError("two domains have the same id")
        return self


def load_rubric(name: str = "cbt_fidelity") -> Rubric:
    """Return a shipped rubric by name, or one in a YAML file. Raises UserError if it is missing or malformed."""
    content: Any = parse_yaml(lambda: _read(name), name)
    if isinstance(content, dict):
        refuse_booleans(content, Rubric, name)
    try:
        return Rubric.model_validate(content)
    except ValidationError as error:
        raise UserError(first_fault(error), where=name, hint="See the shipped rubric cbt_fidelity.") from None


def _read(name: str) -> str:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot be read ({error})", where=path, hint="Name a readable YAML file.") from None
    folder = importlib.resources.files("cbtrain.configs") / "rubrics"
    shipped = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
    if name not in shipped:
        raise UserError("no such rubric", where=name, hint=nearest(name, shipped))
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")
