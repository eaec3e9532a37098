"""The questionnaire that a simulated patient fills in after a session: its items, and what a valid answer is."""

from __future__ import annotations

import importlib.resources
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model, model_validator

from cbtrain.errors import UserError, nearest
from cbtrain.eval.simulation.question import Question
from cbtrain.files import exists, expanded, shipped, text_digest
from cbtrain.settings import parse_yaml, refuse_booleans
from cbtrain.text.faults import fault_of

ID = r"^[a-z][a-z0-9_]{0,39}$"
"""Ids are keys of answers and columns of a table."""

IS_ID = re.compile(ID)

COLUMNS = ("session_id", "arm", "patient", "seed", "status")
"""Columns of the table of answers that are there whatever the items are."""

WIDEST = 100
"""Steps of the widest scale: the schema lists all points, since some providers drop numeric bounds."""

TOKENS_PER_ITEM, TOKENS_OF_WORDS = 24, 400
"""Room for an answer: of one item with its key, and of the own words."""

LONGEST_WORDS = 800
"""Most characters of the own words of a model on this machine, which a grammar can hold to them."""

MOST_TOLD = 8
"""Faults of a file that one error names; the others are counted."""


class Item(BaseModel):
    """A statement or question, answered by a whole number from ``low`` to ``high``, whose ends have labels.
    ``reversed``: a high answer means little of what the sub-scale measures."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=ID)
    subscale: str
    text: str = Field(min_length=1)
    low: int
    high: int
    low_label: str = Field(min_length=1)
    high_label: str = Field(min_length=1)
    reversed: bool = False

    def value(self, answer: int) -> int:
        """Return ``answer`` in the direction of the sub-scale."""
        return self.low + self.high - answer if self.reversed else answer


class OwnWords(BaseModel):
    """A question that is answered in words."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field("own_words", pattern=ID)
    text: str = Field(min_length=1)


class Questionnaire(BaseModel):
    """``subscales`` are described by their id. The items of a sub-scale have one scale, so that their mean is on it."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    note: str = ""
    introduction: str = Field(min_length=1)
    subscales: dict[str, str] = Field(min_length=1)
    items: list[Item] = Field(min_length=1)
    own_words: OwnWords

    @model_validator(mode="after")
    def _fits_together(self) -> Questionnaire:
        if faults := self._faults():
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> list[str]:
        faults = [f"the name {name!r} does not match {ID}" for name in self.subscales if not IS_ID.match(name)]
        columns = Counter([*COLUMNS, *self.subscales, *(item.id for item in self.items), self.own_words.id])
        faults += [f"the name {name!r} is given {count} times" for name, count in columns.items() if count > 1]
        for item in self.items:
            if item.subscale not in self.subscales:
                faults.append(f"{item.id}: no sub-scale {item.subscale!r}. {nearest(item.subscale, self.subscales)}")
            if not 1 <= item.high - item.low <= WIDEST:
                faults.append(f"{item.id}: high must be 1 to {WIDEST} above low")
        for name in self.subscales:
            ranges = {(item.low, item.high) for item in self.items if item.subscale == name}
            if len(ranges) != 1:
                what = "items with different scales, whose mean would mean nothing" if ranges else "no item"
                faults.append(f"the sub-scale {name!r} has {what}")
        return faults

    @cached_property
    def digest(self) -> str:
        """Return a digest of all that is asked; the note is not shown to the patient."""
        content = json.dumps(self.model_dump(mode="json", exclude={"note"}), sort_keys=True)
        return text_digest(content)

    @cached_property
    def question(self) -> Question:
        """Return what a patient is asked, with the shape of an answer."""
        tokens = TOKENS_PER_ITEM * len(self.items) + TOKENS_OF_WORDS
        return Question(self._text(), self._shape(), self._schema(), self._schema(LONGEST_WORDS), tokens)

    def range_of(self, subscale: str) -> tuple[int, int]:
        """Return the lowest and the highest mean of ``subscale``."""
        return next((item.low, item.high) for item in self.items if item.subscale == subscale)

    def means(self, answers: Mapping[str, Any]) -> dict[str, float]:
        """Return the mean of each sub-scale, reversed items turned round; ``answers`` has every item."""
        values: dict[str, list[int]] = {name: [] for name in self.subscales}
        for item in self.items:
            values[item.subscale].append(item.value(answers[item.id]))
        return {name: sum(numbers) / len(numbers) for name, numbers in values.items()}

    def accepts(self, answers: Any) -> bool:
        """Return whether ``answers``, read from a file, has every item in its range and the own words."""
        try:
            self.question.shape.model_validate(answers)
        except ValidationError:
            return False
        return True

    def _text(self) -> str:
        lines = [self.introduction, ""]
        lines += [
            f"{item.id}: {item.text} (from {item.low} = {item.low_label} to {item.high} = {item.high_label})"
            for item in self.items
        ]
        lines += [f"{self.own_words.id}: {self.own_words.text}", ""]
        keys = ", ".join(item.id for item in self.items)
        lines.append(f"Answer with one JSON object: a whole number for each of {keys}; a text for {self.own_words.id}.")
        return "\n".join(lines)

    def _shape(self) -> type[BaseModel]:
        strict = ConfigDict(extra="ignore", strict=True)  # keys that nobody asked for change no answer
        number: Any = Annotated[int, BeforeValidator(_whole)]  # 3.0 in place of 3 changes none either
        fields: dict[str, Any] = {item.id: (number, Field(ge=item.low, le=item.high)) for item in self.items}
        fields[self.own_words.id] = (str, ...)
        return create_model("Answers", __config__=strict, **fields)

    def _schema(self, longest: int | None = None) -> dict[str, Any]:
        """Return the JSON schema of an answer, with points as enums; ``longest``: of the own words, in characters."""
        properties: dict[str, Any] = {item.id: {"enum": list(range(item.low, item.high + 1))} for item in self.items}
        properties[self.own_words.id] = {"type": "string"} | ({"maxLength": longest} if longest else {})
        required = list(properties)
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def load_questionnaire(name: str) -> Questionnaire:
    """Return a shipped questionnaire by name, or one in a YAML file. Raises UserError if it is missing, or one that
    names all faults if it is malformed."""
    content: Any = parse_yaml(lambda: _read(name), name)
    if isinstance(content, dict):
        refuse_booleans(content, Questionnaire, name)
    try:
        return Questionnaire.model_validate(content)
    except ValidationError as error:
        told = [_told(fault["loc"], fault_of(fault)) for fault in error.errors()]
        more = [f"and {len(told) - MOST_TOLD} more"] if told[MOST_TOLD:] else []
        hint = "See the shipped questionnaire after-session."
        raise UserError("; ".join(told[:MOST_TOLD] + more), where=name, hint=hint) from None


def _told(key: Sequence[int | str], fault: str) -> str:
    return f"{'.'.join(map(str, key))}: {fault}" if key else fault


def shipped_questionnaires() -> list[str]:
    """Return the names of the shipped questionnaires."""
    return shipped("questionnaires")


def _read(name: str) -> str:
    shipped = shipped_questionnaires()
    if name in shipped:
        folder = importlib.resources.files("cbtrain.configs") / "questionnaires"
        return (folder / f"{name}.yaml").read_text(encoding="utf-8")
    if not exists(expanded(name)):
        hint = f"{nearest(name, shipped)} A YAML file can be named, too."
        raise UserError(f"no questionnaire {name!r}", hint=hint)
    return Path(expanded(name)).read_text(encoding="utf-8-sig")
