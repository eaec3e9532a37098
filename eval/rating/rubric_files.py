"""Read rubrics: the shipped ones by name, others from YAML files. Everything that is wrong is told at once."""

from __future__ import annotations

import copy
import importlib.resources
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cbtrain.errors import UserError, first_of, nearest
from cbtrain.eval.rating.cue import Cue
from cbtrain.eval.rating.rubric import Domain, Rubric
from cbtrain.files import exists, expanded, shipped, write_atomic
from cbtrain.settings import parse_yaml, refuse_booleans, with_current_names
from cbtrain.text.faults import fault_of

FIDELITY = "cbt_fidelity"
HINT = "`cbtrain rubric check FILE` tells all that is wrong; docs/rubrics.md describes the format."
MOST_TOLD = 12


def load_rubric(name: str = FIDELITY) -> Rubric:
    """Return a shipped rubric by name, or one in a YAML file. Raises UserError if it is missing, or with everything
    that is wrong with it."""
    if name in shipped_rubrics():
        return read_rubric(name, (importlib.resources.files("cbtrain.configs") / "rubrics" / f"{name}.yaml").read_text)
    if Path(name).suffix not in (".yaml", ".yml") and not exists(name):
        hint = f"{nearest(name, shipped_rubrics())} A YAML file can be named, too."
        raise UserError("no such rubric", where=name, hint=hint)
    path = Path(expanded(name))
    return read_rubric(name, lambda: path.read_text(encoding="utf-8-sig"))


def short_name(word: str) -> str:
    """Return what a rubric is called in names of files: its shipped name, or that of its file."""
    return Path(word).stem if Path(word).suffix else word


@cache
def shipped_rubrics() -> tuple[str, ...]:
    """Return the names of the shipped rubrics."""
    return tuple(shipped("rubrics"))


def example_text() -> str:
    """Return the text of a short rubric with comments, to start from."""
    folder = importlib.resources.files("cbtrain.configs") / "rubrics" / "examples"
    return (folder / "four_items.yaml").read_text(encoding="utf-8")


def read_rubric(where: object, read: Any) -> Rubric:
    """Return the rubric in the YAML text that ``read`` returns. Raises RubricError with everything that is wrong."""
    content: Any = parse_yaml(read, where)
    if not isinstance(content, dict):
        raise UserError("no rubric (it must be a section of keys and values)", where=where, hint=HINT)
    problems = []
    try:
        refuse_booleans(with_current_names(content, Rubric, where), Rubric, where)
    except UserError as error:
        problems.append(" ".join(filter(None, (f"{error.what}.", error.hint))))
    try:
        rubric: Rubric | None = Rubric.model_validate(content)
    except ValidationError as error:
        faults = error.errors()
        problems += [
            f"{_place(fault['loc'], content)}: {_fault(fault)}" for fault in faults if not _half(fault, faults)
        ]
        rubric = _rest(content, [fault["loc"] for fault in faults])
    problems += rubric.problems() if rubric else []
    written = "domains" if "domains" in content else "items"  # as the file calls them
    problems = [re.sub("^domains", written, problem) for problem in problems]
    if problems or rubric is None:
        raise RubricError(where, list(dict.fromkeys(problems)))
    return rubric


class RubricError(UserError):
    """Everything that is wrong with a rubric: ``problems``, each with its place, and all of them in one line."""

    def __init__(self, where: object, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        told = first_of([f"({number}) {problem}" for number, problem in enumerate(problems, 1)], MOST_TOLD)
        what = problems[0] if len(problems) == 1 else f"{len(problems)} problems: {' '.join(told)}"
        super().__init__(what, where=where, hint=HINT)


UNION = ("int", "float", "[key]")
"""Pydantic's own parts of places: the kinds of number, and the key of a section in place of its value."""


def _half(fault: ErrorDetails, faults: Sequence[ErrorDetails]) -> bool:
    """Return whether ``fault`` says of a number why it is no whole one, and another why it is none at all."""
    place = _without_kind(fault["loc"])
    others = [other for other in faults if _without_kind(other["loc"]) == place]
    return "int" in fault["loc"] and any("float" in other["loc"] for other in others)


def _without_kind(keys: tuple[int | str, ...]) -> list[int | str]:
    return [key for key in keys if key not in UNION]


def _fault(fault: ErrorDetails) -> str:
    """Return what is wrong, with the key that was probably meant in place of an unknown one."""
    if fault["type"] != "extra_forbidden":
        return fault_of(fault)
    keys = fault["loc"]
    section: type[BaseModel] = Cue if "cues" in keys else Domain if len(keys) > 1 else Rubric
    return f"{fault_of(fault)}. {nearest(str(keys[-1]), section.model_fields)}"


def _rest(content: dict[str, Any], faulty: Sequence[tuple[int | str, ...]]) -> Rubric | None:
    """Return the rubric without the keys that are ``faulty``, of which it can be told whether the rest fits together;
    None if there is none without them."""
    rest = copy.deepcopy(content)
    for keys in faulty:
        section: Any = rest
        place = _without_kind(keys)
        *way, last = place[: place.index("cues") + 1] if "cues" in place else place  # nothing rests on a cue
        for key in way:
            section = _inside(section, key)
        if isinstance(section, dict):
            section.pop(last, None)
    try:
        return Rubric.model_validate(rest)
    except ValidationError:
        return None


def _place(keys: tuple[int | str, ...], content: Any) -> str:
    """Return the dotted key of a fault; of a domain, also what it is called."""
    words = []
    for key in _without_kind(keys):
        content = _inside(content, key)
        called = content.get("id") or content.get("name") if isinstance(key, int) and isinstance(content, dict) else ""
        words.append(f"{key} ({called})" if called else str(key))
    return ".".join(words)


def _inside(content: Any, key: int | str) -> Any:
    try:
        return content[key]
    except (KeyError, IndexError, TypeError):
        return None


def write_rubric(rubric: Rubric, path: Path) -> None:
    """Write ``rubric`` so that :func:`load_rubric` gives it again."""
    content = rubric.identity() | ({"cue_language": rubric.cue_language} if rubric.cue_language != "en" else {})
    for domain, plain in zip(rubric.domains, content["domains"], strict=True):
        plain["anchors"] = dict(sorted(domain.anchors.items()))
        plain["cues"] = [cue.model_dump(exclude_defaults=True) for cue in domain.cues]
    content["domains"] = content.pop("domains")  # last
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    write_atomic(path, text)
