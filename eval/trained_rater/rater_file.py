"""The file of a trained rater: one JSON object that says what it imitates, by which numbers, and how well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cbtrain.errors import UserError, first_of
from cbtrain.eval.trained_rater.features import FEATURES, VERSION
from cbtrain.files import write_atomic
from cbtrain.text.faults import fault_of

SCHEMA = "cbtrain.rater/1"
MOST_TOLD = 6
HINT = "Fit it again with `cbtrain judge train`."

Numbers = list[float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class FittedTo(_Part):
    """Whose scores, of how many sessions."""

    kind: Literal["machine", "people"]
    judges: list[str] = Field(min_length=1)
    sessions: int = Field(ge=1)
    patients: int = Field(ge=1)
    arms: int = Field(ge=1)
    languages: list[str]

    @property
    def who(self) -> str:
        """``the author's judge``; ``2 judges (a, b)``; ``3 people``, whose names stay out of tables and reports."""
        if self.kind == "people":
            return "one person" if len(self.judges) == 1 else f"{len(self.judges)} people"
        if len(self.judges) == 1:
            return self.judges[0]
        return f"{len(self.judges)} judges ({', '.join(first_of(self.judges, 3))})"


class Item(_Part):
    """``coefficients``: points for each SD of a feature, in the order of :class:`Counted`."""

    id: str = Field(min_length=1)
    name: str
    penalty: float = Field(gt=0)
    intercept: float
    coefficients: Numbers


class Scale(_Part):
    """``name`` and ``digest`` of the rubric, and its lowest and highest point."""

    name: str
    digest: str
    minimum: float
    maximum: float


class Counted(_Part):
    """The features: their ``mean``, ``spread`` (SD), ``low`` and ``high`` in the fit."""

    version: int
    names: list[str] = Field(min_length=1)
    mean: Numbers
    spread: Numbers
    low: Numbers
    high: Numbers


class RaterFile(_Part):
    """The file. ``validation``: rows of :func:`cbtrain.eval.trained_rater.validation.validate`."""

    schema_: Literal["cbtrain.rater/1"] = Field(alias="schema")
    cbtrain_version: str
    label: str
    notice: str
    fitted_to: FittedTo
    instrument: Scale
    features: Counted
    items: list[Item] = Field(min_length=1)
    validation: list[dict[str, Any]]

    @model_validator(mode="after")
    def _fits_together(self) -> RaterFile:
        problems = []
        if self.features.version != VERSION:
            problems.append(f"its features are of version {self.features.version}, this cbtrain counts {VERSION}")
        if unknown := [name for name in self.features.names if name not in FEATURES]:
            problems.append(f"unknown features: {', '.join(first_of(unknown, 3))}")
        count = len(self.features.names)
        columns = [(f"features.{key}", getattr(self.features, key)) for key in ("mean", "spread", "low", "high")]
        columns += [(f"items.{item.id}.coefficients", item.coefficients) for item in self.items]
        lengths = [(key, len(column)) for key, column in columns]
        problems += [f"{key}: {length} numbers for {count} features" for key, length in lengths if length != count]
        if any(spread <= 0 for spread in self.features.spread):
            problems.append("features.spread: must be above 0")
        if self.instrument.minimum >= self.instrument.maximum:
            problems.append("instrument: minimum must be below maximum")
        ids = [item.id for item in self.items]
        problems += [f"two items are called {name!r}" for name in dict.fromkeys(ids) if ids.count(name) > 1]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def label_of(fitted_to: FittedTo) -> str:
    """Return what a rater that was fitted to these scores is."""
    if fitted_to.kind == "people":
        return f"trained rater: imitates ratings by {fitted_to.who}; not validated, no clinical judgement"
    machine = "a machine judge" if len(fitted_to.judges) == 1 else "machine judges"
    return f"trained rater: imitates {fitted_to.who}, {machine}; no clinical judgement"


def write_content(content: RaterFile, path: Path) -> None:
    """Write ``content`` so that :func:`read_content` gives it again."""
    plain = content.model_dump(mode="json", by_alias=True)
    write_atomic(path, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_content(path: Path) -> RaterFile:
    """Return what is in a file of :func:`write_content`. Raises UserError with all that is wrong, in one line."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("no such file", where=path, hint="`cbtrain judge train` writes one.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"no trained rater ({error})", where=path, hint=HINT) from None
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        what = f"its schema is {found!r}" if found else "it names no schema"
        raise UserError(f"no trained rater: {what}, not {SCHEMA!r}", where=path, hint=HINT)
    try:
        return RaterFile.model_validate(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))}: {fault_of(fault)}" if fault["loc"] else fault_of(fault)
            for fault in error.errors()
        ]
        raise UserError("; ".join(first_of(faults, MOST_TOLD)), where=path, hint=HINT) from None
