"""Arms: which base model a therapist has, whether it was tuned, and on what.

Base and variant are read from an arm's name by one rule (``docs/analysis.md``), or declared in a YAML file. Contrasts
follow from them (:mod:`cbtrain.eval.analysis.contrast_plan`), so every analysis reports what was read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cbtrain.errors import UserError, nearest
from cbtrain.settings import parse_yaml
from cbtrain.transcripts.source import validate

TUNED = dict.fromkeys(("tuned", "finetune", "finetuned", "fine-tune", "fine-tuned", "fine tuned"), "tuned")
UNTUNED = {name: name for name in ("untuned", "base", "instruct", "chat", "baseline")}
UNTUNED |= {f"{no}{gap}tuned": "untuned" for no in ("un", "non", "not") for gap in ("-", " ", "_")}
PLACEBO = {"placebo": "placebo"}
VARIANTS = TUNED | UNTUNED | PLACEBO
"""Words that name a variant, and the variant's name in contrasts."""

WORD = re.compile(rf"(?<![^\W_])({'|'.join(sorted(VARIANTS, key=len, reverse=True))})(?![^\W_])", re.IGNORECASE)
EDGES = " \t_:-–—/|.,()[]"
"""Characters that separate the parts of a name."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A therapist under test. ``base`` and ``variant`` are empty if neither name nor file gives them. ``reference``:
    name of the arm that this one is compared with, if that is declared. ``is_reference``: every other arm is compared
    with this one; at most one arm of a study has it."""

    name: str
    base: str
    variant: str
    reference: str = ""
    is_reference: bool = False


def arms_of(names: Iterable[str]) -> dict[str, Arm]:
    """Return the arms called ``names``, in their order, with base and variant read from the names."""
    arms = {name: _arm(name) for name in names}
    trained_bases = {arm.base for arm in arms.values() if arm.variant in ("tuned", "placebo") and arm.base}
    # An arm whose whole name is the base of a trained arm is that base: "Qwen-Instruct" of "Qwen-Instruct-tuned".
    return {name: Arm(name, name, "untuned") if name in trained_bases else arm for name, arm in arms.items()}


def _arm(name: str) -> Arm:
    """Return the arm called ``name``. It has the form ``BASE: VARIANT``, or contains a word that names a variant: the
    last such word counts, and the base is the text before it, or after it if there is none before. With a base before
    the variant, the text after it (a date, a run) is ignored."""
    before, colon, after = name.rpartition(":")
    if colon and after.strip().casefold() in VARIANTS:
        return Arm(name, before.strip(), VARIANTS[after.strip().casefold()])
    variant_words = list(WORD.finditer(name))
    if not variant_words:
        return Arm(name, "", "")
    word = variant_words[-1]
    base = name[: word.start()].strip(EDGES) or name[word.end() :].strip(EDGES)
    return Arm(name, base, VARIANTS[word[1].casefold()])


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    base: str = ""
    variant: str = ""
    reference: str | bool = ""

    @field_validator("reference", mode="before")
    @classmethod
    def _check_reference(cls, value: object) -> object:
        if not isinstance(value, str | bool):
            raise ValueError("give the name of an arm, or true")
        return value


class _ArmsFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    arms: dict[str, _Declared] = Field(min_length=1)

    @field_validator("arms", mode="before")
    @classmethod
    def _numbers_are_names(cls, arms: object) -> object:
        """Let a table's condition 0 or 1 be named without quotes."""
        if not isinstance(arms, dict):
            return arms
        return {str(name) if type(name) is int else name: declared for name, declared in arms.items()}


def declared_arms(arms: Mapping[str, Arm], path: Path) -> dict[str, Arm]:
    """Return ``arms``, with the base, variant and reference that the YAML file at ``path`` declares for some of them.

    Raises UserError on a malformed file, on a name that is not among ``arms``, and as :func:`check_references` does.
    """
    hint = "See 'Arms' in docs/analysis.md."
    content = parse_yaml(lambda: path.read_text(encoding="utf-8-sig"), path)
    if not isinstance(content, dict):
        raise UserError("the file declares no arms", where=path, hint=hint)
    result = dict(arms)
    for name, declared in validate(_ArmsFile, content, path, hint).arms.items():
        if name not in arms:
            raise UserError(f"no arm {name!r} in the scores", where=path, hint=nearest(name, arms))
        result[name] = with_declared(result[name], declared.base, declared.variant, declared.reference)
    check_references(result, path, "the scores")
    return result


def with_declared(arm: Arm, base: str, variant: str, reference: str | bool) -> Arm:
    """Return ``arm`` with what a file declares of it; an empty ``base`` or ``variant`` leaves what its name tells.
    ``reference``: name of the arm that it is compared with; True: all others are compared with it."""
    return replace(
        arm,
        base=base or arm.base,
        variant=VARIANTS.get(variant.casefold(), variant) or arm.variant,
        reference=reference if isinstance(reference, str) else "",
        is_reference=reference is True,
    )


def check_references(arms: Mapping[str, Arm], where: object, among: str) -> None:
    """Raise UserError, which names ``where``, on a reference that is not among ``arms`` (those in ``among``), on an arm
    that is its own reference, on references that lead back to their arm, and on two references of the whole study."""
    for arm in arms.values():
        if arm.reference and arm.reference not in arms:
            what = f"{arm.name}: its reference {arm.reference!r} is not an arm in {among}"
            raise UserError(what, where=where, hint=nearest(arm.reference, arms))
        if arm.reference == arm.name:
            raise UserError(f"{arm.name}: it is its own reference", where=where, hint="Name the untuned arm.")
    if circle := _circle(references(arms)):
        what = f"references lead in a circle: {' → '.join(circle)}"
        hint = "One contrast would count twice: leave out the reference of the untuned arm."
        raise UserError(what, where=where, hint=hint)
    shared = [arm.name for arm in arms.values() if arm.is_reference]
    if len(shared) > 1:
        what = f"{len(shared)} arms have reference: true: {', '.join(shared)}"
        hint = "Every arm is compared with one reference: leave true at one of them, or name an arm (reference: NAME)."
        raise UserError(what, where=where, hint=hint)


def study_reference(arms: Mapping[str, Arm]) -> str:
    """Return the name of the arm that every other arm is compared with; empty if there is none."""
    return next((arm.name for arm in arms.values() if arm.is_reference), "")


def _circle(pairs: Mapping[str, str]) -> list[str]:
    """Return the arms of a circle of references, the first once more at the end; empty if there is none."""
    for name in pairs:
        way = [name]
        while way[-1] in pairs and pairs[way[-1]] not in way:
            way.append(pairs[way[-1]])
        if pairs.get(way[-1]) == name:
            return [*way, name]
    return []


def references(arms: Mapping[str, Arm]) -> dict[str, str]:
    """Return the name of the reference of each treated arm.

    It is the declared one; else, for a tuned arm, the only untuned arm of its base. A tuned arm that shares its base
    with another tuned arm has no reference unless one is declared.
    """
    count = Counter((arm.base, arm.variant) for arm in arms.values())
    untuned_of: dict[str, list[str]] = {}
    for arm in arms.values():
        if arm.variant in UNTUNED:
            untuned_of.setdefault(arm.base, []).append(arm.name)
    reference_of = {}
    for arm in arms.values():
        untuned = untuned_of.get(arm.base, [])
        if arm.reference:
            reference_of[arm.name] = arm.reference
        elif arm.variant == "tuned" and count[arm.base, arm.variant] == 1 and len(untuned) == 1:
            reference_of[arm.name] = untuned[0]
    return reference_of
