"""Read rubrics: the shipped ones by name, others from YAML files. Everything that is wrong is told at once."""

from __future__ import annotations

import importlib.resources
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cbtrain.errors import Collected, UserError, nearest
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.files import exists, expanded, write_atomic
from cbtrain.settings import parse_yaml, refuse_booleans
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


@cache
def shipped_rubrics() -> tuple[str, ...]:
    """Return the names of the shipped rubrics."""
    folder = importlib.resources.files("cbtrain.configs") / "rubrics"
    return tuple(sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")))


def read_rubric(where: object, read: Any) -> Rubric:
    """Return the rubric in the YAML text that ``read`` returns. Raises UserError with everything that is wrong."""
    content: Any = parse_yaml(read, where)
    problems = Collected("problems", MOST_TOLD)
    if not isinstance(content, dict):
        raise UserError("no rubric (it must be a section of keys and values)", where=where, hint=HINT)
    with problems.collected():
        refuse_booleans(content, Rubric, where)
    try:
        rubric = Rubric.model_validate(content)
    except ValidationError as error:
        for fault in error.errors():
            problems.add(UserError(f"{_place(fault['loc'], content)}: {fault_of(fault)}"))
        _refuse(problems, where)
        raise
    for problem in rubric.problems():
        problems.add(UserError(problem))
    _refuse(problems, where)
    return rubric


def _refuse(problems: Collected, where: object) -> None:
    try:
        problems.refuse()
    except UserError as error:
        raise UserError(str(error), where=where, hint=HINT) from None


def _place(keys: tuple[int | str, ...], content: Any) -> str:
    """Return the dotted key of a fault; of a domain, also what it is called."""
    words = []
    for key in keys:
        if isinstance(key, str) and key in ("int", "float", "[key]"):  # pydantic's own parts
            continue
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
