"""One thing that the embedded rater looks for in a domain."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cbtrain.errors import nearest

MEASURES = (
    "question_share",
    "open_question_share",
    "lecture_share",
    "double_question_share",
    "words_per_turn",
    "talk_share",
    "pickup_share",
    "contradictions",
)
"""Numbers about the therapist's turns: see :func:`cbtrain.eval.rating.cue_rater.measures`."""


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

    @field_validator("measure")
    @classmethod
    def _known(cls, measure: str | None) -> str | None:
        if measure is not None and measure not in MEASURES:
            raise ValueError(f"no such measure. {nearest(measure, MEASURES)}")
        return measure

    @model_validator(mode="after")
    def _one_kind(self) -> Cue:
        if (self.pattern is None) == (self.measure is None):
            raise ValueError("a cue has either a pattern or a measure")
        return self
