"""Arms: which base model a therapist has, and whether it was tuned.

Base and variant are read from an arm's name by one rule (``docs/analysis.md``), or declared in a YAML file. Contrasts
follow from them, so every analysis reports what was read.
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
"""Words that name a variant, and the variant's name in contrasts."""

WORD = re.compile(rf"(?<![^\W_])({'|'.join(sorted(VARIANTS, key=len, reverse=True))})(?![^\W_])", re.IGNORECASE)
EDGES = " \t_:-–—/|.,()[]"
"""Characters that separate the parts of a name."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A therapist under test. ``base`` and ``variant`` are empty if neither name nor file gives them. ``reference``:
    name of the arm that this one is compared with, if a file declares it."""

    name: str
    base: str
    variant: str
    reference: str = ""


def arms_of(names: Iterable[str]) -> dict[str, Arm]:
    """Return the arms called ``names``, in their order, with base and variant read from the names."""
    arms = {name: _arm(name) for name in names}
    tuned_bases = {arm.base for arm in arms.values() if arm.variant == "tuned" and arm.base}
    # An arm whose whole name is the base of a tuned arm is that base: "Qwen-Instruct" of "Qwen-Instruct-tuned".
    return {name: Arm(name, name, "untuned") if name in tuned_bases else arm for name, arm in arms.items()}


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
    reference: str = ""


class _ArmsFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    arms: dict[str, _Declared] = Field(min_length=1)


def declared_arms(arms: Mapping[str, Arm], path: Path) -> dict[str, Arm]:
    """Return ``arms``, with the base, variant and reference that the YAML file at ``path`` declares for some of them.

    Raises UserError on a malformed file, on a name or reference that is not among ``arms``, on an arm that is its own
    reference, and on references that lead back to their arm.
    """
    hint = "See 'Arms' in docs/analysis.md."
    content = parse_yaml(lambda: path.read_text(encoding="utf-8-sig"), path)
    if not isinstance(content, dict):
        raise UserError("the file declares no arms", where=path, hint=hint)
    result = dict(arms)
    for name, declared in validate(_ArmsFile, content, path, hint).arms.items():
        if name not in arms:
            raise UserError(f"no arm {name!r} in the scores", where=path, hint=nearest(name, arms))
        if declared.reference and declared.reference not in arms:
            what = f"{name}: its reference {declared.reference!r} is not an arm in the scores"
            raise UserError(what, where=path, hint=nearest(declared.reference, arms))
        if declared.reference == name:
            raise UserError(f"{name}: it is its own reference", where=path, hint="Name the untuned arm.")
        variant = VARIANTS.get(declared.variant.casefold(), declared.variant)
        fields = {key: value for key, value in (("base", declared.base), ("variant", variant)) if value}
        result[name] = replace(result[name], reference=declared.reference, **fields)
    if circle := _circle(references(result)):
        what = f"references lead in a circle: {' → '.join(circle)}"
        hint = "One contrast would count twice: leave out the reference of the untuned arm."
        raise UserError(what, where=path, hint=hint)
    return result


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


def describe_arms_found(arms: Mapping[str, Arm]) -> str:
    """Return a sentence on the bases and variants of ``arms``; empty if there are fewer than two arms."""
    if len(arms) < 2:
        return ""
    reference_of = references(arms)
    in_pairs = [arms[name] for name in arms if name in reference_of or name in reference_of.values()]
    others = [name for name in arms if arms[name] not in in_pairs]
    parts = []
    if in_pairs:
        bases = sorted({arm.base for arm in in_pairs if arm.base})
        count = f"{len(bases)} base{'' if len(bases) == 1 else 's'} ({', '.join(bases)}) × " if bases else ""
        variants = sorted({arm.variant for arm in in_pairs}, key=lambda name: (name == "tuned", name))
        parts.append(f"{count}{', '.join(variants)}")
    if others:
        shown = "a reference" if in_pairs else "an untuned and a tuned arm of the same base"
        why = f"their names do not show {shown}"
        parts.append(f"compared in pairs, since {why}: {', '.join(others)}")
    return "; ".join(parts)
