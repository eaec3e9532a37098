"""``corpus.map``: where a record, a table or a text keeps its turns, its speakers, and whose session it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cbtrain.errors import UserError
from cbtrain.files import expanded
from cbtrain.settings import parse_yaml
from cbtrain.transcripts.types import Role

LONGEST_PATTERN = 1000


def _list(value: Any) -> Any:
    """Return one name as a list, and numbers and truth values as the names that they are in a file."""
    values = value if isinstance(value, list) else [value]
    return [str(one) if isinstance(one, int | float) else one for one in values]


def _pattern(value: str) -> str:
    if len(value) > LONGEST_PATTERN:
        raise ValueError(f"a pattern of more than {LONGEST_PATTERN} characters")
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from None
    return value


def is_pattern(key: str) -> bool:
    """Return whether ``key`` is a pattern on the path of a file: it has a named group."""
    return "(?P<" in key


def _key(value: str) -> str:
    if not value.strip():
        raise ValueError("an empty key")
    return _pattern(value) if is_pattern(value) else value


Key = Annotated[str, AfterValidator(_key)]
"""A column, a dotted key (``a.b``, ``a[0].b``, ``a[*].b``), or a pattern with a named group on the file's path."""

Names = Annotated[list[str], BeforeValidator(_list)]
Keys = Annotated[list[Key], BeforeValidator(_list)]


class CorpusMap(BaseModel):
    """Where the parts of a session are. docs/transcripts.md has an example for each value of ``each``."""

    model_config = ConfigDict(extra="forbid")

    each: Literal["turn", "pair", "session", "text", "preference"] | None = Field(
        None,
        description="what one record, row or file is: a turn, a patient's and a therapist's turn, a session with a "
        "list of turns, a text with labels (files of text: always text), or a chosen and a rejected answer",
    )
    turns: Keys = Field([], description="session: the list of turns; several keys are joined in their order")
    text: Key | None = Field(None, description="the words: of a turn, or the labelled text")
    speaker: Key | None = Field(None, description="who speaks a turn; a list beside a list of texts is taken in step")
    patient: Names = Field(
        [], description="pair: columns of the patient ('a + b' joins two); else the speakers that are the patient"
    )
    therapist: Names = Field([], description="pair: columns of the therapist; else the speakers that are the therapist")
    ignore: Names = Field([], description="speakers whose turns are left out, counted")
    system_speaker: Names = Field([], description="speakers whose turns, before all others, are the system prompt")
    alternate: Role | None = Field(None, description="no speaker is named: who speaks first; then they take turns")
    prompt: Key | None = Field(
        None,
        description="preference: what is answered (default: what both answers begin with); 'a + b' joins two texts",
    )
    chosen: Key | None = Field(None, description="preference: the better answer, a text or a list of messages")
    rejected: Key | None = Field(None, description="preference: the worse answer")
    history: Key | None = Field(None, description="pair: earlier pairs, a list of [patient's, therapist's words]")
    course: Key | None = Field(None, description="the course a session belongs to (default: each session its own)")
    session: Key | None = Field(None, description="turn: rows of one value are one session; else its number")
    patient_id: Key | None = Field(None, description="who is treated: a split keeps all their sessions together")
    order: Key | None = Field(None, description="turn: sort the rows of a session by this number")
    unique: Keys = Field([], description="turn: rows with the same values of these keys count once")
    facts: Keys = Field([], description="what else to keep of a session, by key (default: all other values)")
    weight: Key | None = Field(
        None, description="of a turn in the loss: 0 is context only (also true and false); preference: of the pair"
    )
    system: Key | None = Field(None, description="the system prompt of a session")
    markup: Literal["keep", "strip"] = Field("keep", description="strip: HTML tags go, entities become characters")
    drop: Names = Field([], description="patterns (regular expressions): lines of a text that they match are left out")
    encoding: str = Field("utf-8", description="of tables and texts, such as cp1252")
    delimiter: str | None = Field(None, description="of tables (default: found among , ; tab |)")

    @property
    def given(self) -> dict[str, Any]:
        """The keys that say something, with their values: a run's config.yaml has all keys, most at their default."""
        return self.model_dump(exclude_defaults=True)

    @model_validator(mode="after")
    def _fits(self) -> CorpusMap:
        for pattern in self.drop:
            _pattern(pattern)
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(f"encoding: unknown encoding {self.encoding!r}") from None
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ValueError(f"delimiter: {self.delimiter!r} is not one character")
        needed = {
            "turn": self.text and (self.speaker or self.alternate),
            "pair": self.patient and self.therapist,
            "session": self.turns,
            "text": True,
            "preference": self.chosen and self.rejected,
            None: True,
        }
        if not needed[self.each]:
            lacking = {
                "turn": "text, and speaker or alternate",
                "pair": "the columns patient and therapist",
                "session": "turns",
                "preference": "chosen and rejected",
            }
            raise ValueError(f"each: {self.each} needs {lacking[str(self.each)]}")
        if self.each == "pair" and len(self.patient) != len(self.therapist):
            raise ValueError("each: pair needs as many columns of the patient as of the therapist")
        if self.each != "pair" and (both := {*map(str.casefold, self.patient)} & {*map(str.casefold, self.therapist)}):
            raise ValueError(f"{min(both)!r} is patient and therapist")
        if self.each == "preference" and self.session:
            raise ValueError("each: preference has no session: a pair is a course of its own")
        if self.speaker and self.alternate:
            raise ValueError("speaker and alternate exclude each other")
        return self


def load_map(path: str | Path) -> CorpusMap:
    """Read a map from a YAML file, on its own or under the keys ``map``, ``corpus.map`` or ``corpus: map:``. Raises
    UserError."""
    from cbtrain.transcripts.source import validate  # it needs no map

    path = expanded(path)
    content = parse_yaml(lambda: path.read_text(encoding="utf-8-sig"), path)
    for key in ("corpus", "map", "corpus.map"):
        if isinstance(content, dict) and set(content) == {key}:
            content = content[key]
    if not isinstance(content, dict):
        raise UserError("not a map", where=path, hint="docs/transcripts.md has examples.")
    return validate(CorpusMap, content, path, "`cbtrain corpus guess PATH` prints a map to begin with.")
