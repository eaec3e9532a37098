"""Which therapist an arm is: its base model, and whether that was tuned. One rule for names, and a file for the rest.

Contrasts follow from this, so it is said what was found. The rule is in ``docs/analysis.md``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.errors import UserError, nearest
from cbtrain.settings import parse_yaml
from cbtrain.transcripts.source import validate

TUNED = dict.fromkeys(("tuned", "finetune", "finetuned", "fine-tune", "fine-tuned", "fine tuned"), "tuned")
UNTUNED = {name: name for name in ("untuned", "base", "instruct", "chat", "baseline")}
UNTUNED |= {f"{no}{gap}tuned": "untuned" for no in ("un", "non", "not") for gap in ("-", " ", "_")}
VARIANTS = TUNED | UNTUNED
"""Words that name a variant, and what it is called in contrasts."""

WORD = re.compile(rf"(?<![^\W_])({'|'.join(sorted(VARIANTS, key=len, reverse=True))})(?![^\W_])", re.IGNORECASE)
EDGES = " \t_:-–—/|.,()[]"
"""What stands between the parts of a name."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A therapist under test. ``base`` and ``variant`` are empty where nothing tells them. ``reference``: name of the
    arm that this one is compared with, where a file says so."""

    name: str
    base: str
    variant: str
    reference: str = ""


def arms_of(names: Iterable[str]) -> dict[str, Arm]:
    """Return the arms called ``names``, in their order, base and variant told from the names."""
    found = {name: _arm(name) for name in names}
    tuned = {arm.base for arm in found.values() if arm.variant == "tuned" and arm.base}
    # Called exactly as what was tuned: "Qwen-Instruct" beside "Qwen-Instruct-tuned".
    return {name: Arm(name, name, "untuned") if name in tuned else arm for name, arm in found.items()}


def _arm(name: str) -> Arm:
    """Return the arm called ``name``: ``BASE: VARIANT``; else the last word that names a variant, and the base before
    it (behind it, if the name begins with it). What follows a variant behind a base is a date, a run: no part of
    either."""
    before, colon, after = name.rpartition(":")
    if colon and after.strip().casefold() in VARIANTS:
        return Arm(name, before.strip(), VARIANTS[after.strip().casefold()])
    words = list(WORD.finditer(name))
    if not words:
        return Arm(name, "", "")
    word = words[-1]
    base = name[: word.start()].strip(EDGES) or name[word.end() :].strip(EDGES)
    return Arm(name, base, VARIANTS[word[1].casefold()])


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    base: str = ""
    variant: str = ""
    reference: str = ""


class _ArmsFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    arms: dict[str, _Declared] = Field(min_length=1)


def declared_arms(arms: Mapping[str, Arm], path: Path) -> dict[str, Arm]:
    """Return ``arms`` as the YAML file at ``path`` declares them; one that it does not name stays what its name tells.
    Raises UserError on a malformed file, an arm or a reference that is not among ``arms``, and one that is its own."""
    hint = "See 'Arms' in docs/analysis.md."
    content = parse_yaml(lambda: path.read_text(encoding="utf-8-sig"), path)
    if not isinstance(content, dict):
        raise UserError("no arms in it", where=path, hint=hint)
    found = dict(arms)
    for name, declared in validate(_ArmsFile, content, path, hint).arms.items():
        if name not in arms:
            raise UserError(f"no arm {name!r} in the scores", where=path, hint=nearest(name, arms))
        if declared.reference and declared.reference not in arms:
            what = f"{name}: no arm {declared.reference!r} in the scores, its reference"
            raise UserError(what, where=path, hint=nearest(declared.reference, arms))
        if declared.reference == name:
            raise UserError(f"{name}: it is its own reference", where=path, hint="Name the untuned arm.")
        variant = VARIANTS.get(declared.variant.casefold(), declared.variant)
        given = {key: value for key, value in (("base", declared.base), ("variant", variant)) if value}
        found[name] = replace(found[name], reference=declared.reference, **given)
    return found


def references(arms: Mapping[str, Arm]) -> dict[str, str]:
    """Return, for each treated arm, the one that it is compared with: the declared one, else for a tuned arm the only
    untuned one of its base. Arms that share base and variant with another have none by their names."""
    count = Counter((arm.base, arm.variant) for arm in arms.values())
    untuned: dict[str, list[str]] = {}
    for arm in arms.values():
        if arm.variant in UNTUNED:
            untuned.setdefault(arm.base, []).append(arm.name)
    found = {}
    for arm in arms.values():
        own = untuned.get(arm.base, [])
        if arm.reference:
            found[arm.name] = arm.reference
        elif arm.variant == "tuned" and count[arm.base, arm.variant] == 1 and len(own) == 1:
            found[arm.name] = own[0]
    return found


def describe_arms_found(arms: Mapping[str, Arm]) -> str:
    """Return what names and file tell, in a sentence; empty if there are no two arms."""
    if len(arms) < 2:
        return ""
    pairs = references(arms)
    placed = [arms[name] for name in arms if name in pairs or name in pairs.values()]
    others = [name for name in arms if arms[name] not in placed]
    bases = sorted({arm.base for arm in placed if arm.base})
    variants = ", ".join(sorted({arm.variant for arm in placed}, key=lambda name: (name == "tuned", name)))
    count = f"{len(bases)} base{'' if len(bases) == 1 else 's'} ({', '.join(bases)}) × " if bases else ""
    parts = [f"{count}{variants}"] if placed else []
    if others:
        why = "no reference is told by their names" if placed else "their names tell no untuned and tuned arm of a base"
        parts.append(f"compared in pairs, since {why}: {', '.join(others)}")
    return "; ".join(parts)
