"""The key of a set of forms: the session of each code. It lifts the blind, so raters must not have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError
from cbtrain.eval.human_rating.digests import rubric_digest
from cbtrain.eval.rating.keying import Keying
from cbtrain.eval.rating.rubric import Point, Rubric, points_between
from cbtrain.files import atomic_file, seal, unique_json, unseal
from cbtrain.transcripts.source import validate

KEY_SCHEMA: Final = "cbtrain.rating-key/1"
KEY_FILE = "key.json"


class KeySession(BaseModel):
    """``number``: its place in this rater's order, from 1; ``turns``: how many it has. ``session`` (its number in the
    course, 0: none), ``simulator`` and ``columns`` (of the patient) go to the scores; older keys have none.
    ``domains``: ids of those that are rated, empty: all."""

    model_config = ConfigDict(extra="forbid")

    code: str
    session_id: str
    arm: str
    patient: str
    seed: int
    number: int
    turns: int
    session: int = 0
    simulator: str = ""
    columns: dict[str, str] = Field(default_factory=dict)
    domains: list[str] = Field(default_factory=list)


class KeyTraining(KeySession):
    """A session of the training set, in every form; ``agreed``: its agreed scores, null: cannot be rated."""

    agreed: dict[str, float | None]


class KeyAdjudication(BaseModel):
    """Forms that settle scores in the table of scores ``table`` where people differ by more than ``threshold``
    points."""

    model_config = ConfigDict(extra="forbid")

    table: str
    threshold: float


class KeyForm(BaseModel):
    """One rater's form."""

    model_config = ConfigDict(extra="forbid")

    id: str
    rater: int = Field(description="number of the rater, from 1: the folder rater-N")
    sessions: list[KeySession]


class KeyRubric(BaseModel):
    """The scale that the forms were made with. ``turned`` and ``weights``: how its scores become a total
    (:class:`cbtrain.eval.rating.keying.Keying`); older keys have neither, nor a ``step``."""

    model_config = ConfigDict(extra="forbid")

    name: str
    digest: str
    minimum: Point
    maximum: Point
    step: Point = 1
    domains: list[str] = Field(min_length=1)
    turned: dict[str, float] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=dict)

    @classmethod
    def of(cls, rubric: Rubric, name: str) -> KeyRubric:
        """Return what the key says of ``rubric``, which the user called ``name``."""
        keying = rubric.keying
        return cls(
            name=name,
            digest=rubric_digest(rubric),
            minimum=rubric.minimum,
            maximum=rubric.maximum,
            step=rubric.step,
            domains=rubric.ids,
            turned=dict(keying.turned),
            weights=dict(keying.weights),
        )

    @property
    def keying(self) -> Keying:
        return Keying(self.turned, self.weights)

    @property
    def points(self) -> tuple[Point, ...]:
        return points_between(self.minimum, self.maximum, self.step)


class Key(BaseModel):
    """``source``: where the sessions came from; ``run``: the run folder whose scores the ratings belong to, if any;
    ``training``: sessions that every form has first; ``adjudication``: what the forms settle, if they do."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["cbtrain.rating-key/1"] = Field(KEY_SCHEMA, alias="schema")
    cbtrain_version: str
    source: str
    run: str | None
    seed: int
    rubric: KeyRubric
    forms: list[KeyForm] = Field(min_length=1)
    training: list[KeyTraining] = Field(default_factory=list)
    adjudication: KeyAdjudication | None = None


def write_key(key: Key, path: Path) -> None:
    """Write ``key`` so that at no moment anybody but its owner can read it."""
    with atomic_file(path) as temporary:
        temporary.chmod(0o600)
        content = seal(key.model_dump(by_alias=True))
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def read_key(path: Path) -> Key:
    """Return the key at ``path``. Raises UserError if :func:`write_key` did not write it."""
    hint = f"Name the {KEY_FILE} that `cbtrain rate export` wrote."
    try:
        content = unseal(unique_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError("no such file", where=path, hint=hint) from None
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"not a key ({error})", where=path, hint=hint) from None
    if content.get("schema") != KEY_SCHEMA:
        raise UserError("not a key of rating forms", where=path, hint=hint)
    return validate(Key, content, path, hint)
