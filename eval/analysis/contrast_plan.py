"""Which contrasts are planned for the arms of a study. They follow from base, variant and reference of the arms, before
any score is read ("Arms" in docs/analysis.md).

In one base, each trained arm is compared with the untuned arm, with each placebo and with each other variant, and these
with the untuned arm. If a base has several untuned arms, or several tuned ones, and no declared reference says which is
meant, none is chosen: every pair with one of them is planned in the family ``arms``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, count

from cbtrain.eval.analysis.arms import UNTUNED, Arm, references, study_reference

WITHIN_BASES = ("tuning", "placebo", "variants")
"""Families of contrasts between two arms of one base, or between an arm and its declared reference."""

BY_ITEM = (*WITHIN_BASES, "reference", "arms")
"""Families whose contrasts are computed for each item too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned contrast. ``pairs``: names of arms (a, b) for a − b; several pairs are averaged within each patient.
    ``family``: the contrasts that share Holm's adjustment."""

    id: str
    family: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Difference:
    """``a`` − ``b`` in a family of :data:`WITHIN_BASES`. ``kind``: the variants of ``a`` and ``b``; differences of one
    kind are averaged over bases, unless one of the two is empty."""

    family: str
    a: Arm
    b: Arm
    kind: tuple[str, str]

    @property
    def pair(self) -> tuple[str, str]:
        return self.a.name, self.b.name


def plan_contrasts(arms: Mapping[str, Arm]) -> list[Plan]:
    """Return the contrasts of ``arms``, family by family, with an id each:

    - ``tuning``: tuned − untuned in each base, and every arm − its declared reference;
    - ``placebo``: tuned − placebo and placebo − untuned in each base;
    - ``variants``: tuned − any other variant (a prompt, say) and that variant − untuned in each base;
    - ``pooled``: each of these differences that several bases have, averaged over them;
    - ``tuned``: tuned arms against each other;
    - ``reference``: every other arm − the reference of the study, if there is one;
    - ``arms``: pairs in which the rules above leave open what is compared with what.

    A pair is in at most one of the first three families. An untuned arm or a placebo whose reference is declared is
    compared with it in ``variants`` or ``placebo``.
    """
    reference_of = references(arms)
    bases = _bases(arms, reference_of)
    differences = _differences(arms, bases, reference_of)
    plans = [Plan(_id(each.a, each.b), each.family, (each.pair,)) for each in differences]
    plans += _pooled(differences)
    plans += [
        Plan(_tuned_id(first, second), "tuned", ((first.name, second.name),))
        for first, second in combinations(_tuned_arms(arms, reference_of), 2)
    ]
    if reference := study_reference(arms):
        others = [arm for arm in _by_base(arms.values()) if arm.name != reference]
        plans += [Plan(f"{arm.name} − {reference}", "reference", ((arm.name, reference),)) for arm in others]
    plans += [Plan(f"{a} − {b}", "arms", ((a, b),)) for a, b in _open_pairs(arms, bases, plans)]
    return _with_unique_ids(plans)


def describe_arms_found(arms: Mapping[str, Arm]) -> str:
    """Return a sentence on the bases and variants of ``arms``; empty if there are fewer than two arms."""
    if len(arms) < 2:
        return ""
    plans = plan_contrasts(arms)
    within = _names(plan for plan in plans if plan.family in WITHIN_BASES)
    paired = _names(plan for plan in plans if plan.family in ("tuned", "arms"))
    others = [name for name in arms if name in paired - within]
    parts = []
    if within:
        bases = sorted({arms[name].base for name in within if arms[name].base})
        number = f"{len(bases)} base{'' if len(bases) == 1 else 's'} ({', '.join(bases)}) × " if bases else ""
        variants = sorted({arms[name].variant for name in within}, key=lambda name: (name == "tuned", name))
        parts.append(f"{number}{', '.join(filter(None, variants)) or 'declared references'}")
    if reference := study_reference(arms):
        parts.append(f"each compared with {reference}")
    if others:
        shown = "a reference" if within else "an untuned and a tuned arm of the same base"
        why = f"their names do not show {shown}"
        parts.append(f"compared in pairs, since {why}: {', '.join(others)}")
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class _Base:
    """The arms of one base, by what they are compared as. ``untuned``: None if there is none, or if it is not clear
    which. ``trained``: tuned arms and those with a declared reference. ``others``: further variants, and untuned arms
    beside ``untuned``. ``unclear``: untuned or tuned arms of which none is chosen."""

    untuned: Arm | None
    trained: list[Arm]
    placebos: list[Arm]
    others: list[Arm]
    unclear: list[Arm]

    @property
    def arms(self) -> list[Arm]:
        chosen = [self.untuned] if self.untuned else []
        return [*chosen, *self.trained, *self.placebos, *self.others, *self.unclear]


def _bases(arms: Mapping[str, Arm], reference_of: Mapping[str, str]) -> list[_Base]:
    """Return the bases of ``arms``, sorted by name. Arms with neither base nor variant belong to none."""
    members_of: dict[str, list[Arm]] = {}
    for arm in _by_base(arms.values()):
        if arm.base or arm.variant:
            members_of.setdefault(arm.base, []).append(arm)
    return [_base(members, reference_of) for members in members_of.values()]


def _base(members: Sequence[Arm], reference_of: Mapping[str, str]) -> _Base:
    """Return the arms of one base by what they are compared as."""
    untuned = [arm for arm in members if arm.variant in UNTUNED]
    tuned = [arm for arm in members if arm.variant == "tuned"]
    placebos = [arm for arm in members if arm.variant == "placebo"]
    further = [arm for arm in members if arm not in (*untuned, *tuned, *placebos)]
    trained = [arm for arm in tuned if arm.name in reference_of or len(tuned) == 1]
    trained += [arm for arm in further if arm.name in reference_of]
    chosen = untuned
    if len(untuned) > 1:
        declared = {reference_of.get(arm.name) for arm in tuned or trained}
        chosen = [arm for arm in untuned if arm.name in declared]
    known = len(chosen) == 1
    return _Base(
        untuned=chosen[0] if known else None,
        trained=trained,
        placebos=placebos,
        others=[arm for arm in further if arm not in trained] + [arm for arm in untuned if known and arm not in chosen],
        unclear=[arm for arm in tuned if arm not in trained] + ([] if known else untuned),
    )


def _differences(arms: Mapping[str, Arm], bases: Sequence[_Base], reference_of: Mapping[str, str]) -> list[_Difference]:
    """Return the contrasts of the families :data:`WITHIN_BASES`, each pair once."""
    declared = [(arm, arms[reference_of[arm.name]]) for arm in _by_base(arms.values()) if arm.name in reference_of]
    differences = [_Difference(_family(arm), arm, ref, (_kind(arm), _role(ref))) for arm, ref in declared]
    for base in bases:
        untuned = [base.untuned] if base.untuned else []
        for family, controls in (("placebo", base.placebos), ("variants", base.others)):
            for control in controls:
                kind = _kind(control)
                differences += [_Difference(family, arm, control, (_kind(arm), kind)) for arm in base.trained]
                if control.name not in reference_of:
                    differences += [_Difference(family, control, arm, (kind, "untuned")) for arm in untuned]
    first_of: dict[frozenset[str], _Difference] = {}
    for difference in differences:
        first_of.setdefault(frozenset(difference.pair), difference)
    return sorted(first_of.values(), key=lambda each: (WITHIN_BASES.index(each.family), each.a.base))


def _family(treated: Arm) -> str:
    """Return the family in which an arm is compared with its reference."""
    if treated.variant == "placebo":
        return "placebo"
    return "variants" if treated.variant in UNTUNED else "tuning"


def _kind(arm: Arm) -> str:
    """Return what ``arm`` is in a mean over bases: its variant, but nothing for ``untuned``. That names what others are
    compared with, so an untuned arm that is compared itself needs a variant of its own."""
    return "" if arm.variant == "untuned" else arm.variant


def _role(reference: Arm) -> str:
    """Return what other arms of its base are compared with, in a mean over bases: all variants without tuning are one
    kind."""
    return "untuned" if reference.variant in UNTUNED else reference.variant or "untuned"


def _pooled(differences: Sequence[_Difference]) -> list[Plan]:
    """Return one plan for each kind of difference that several bases have."""
    all_bases = {difference.a.base for difference in differences}
    plans = []
    for kind in dict.fromkeys(difference.kind for difference in differences if all(difference.kind)):
        members = [difference for difference in differences if difference.kind == kind]
        bases = {difference.a.base for difference in members}
        if len(bases) > 1:
            over = "all bases" if bases == all_bases else f"{len(bases)} of {len(all_bases)} bases"
            variant, reference = kind
            if reference == "untuned":
                names = {difference.b.variant for difference in members}
                reference = (names.pop() if len(names) == 1 else "") or reference
            pairs = tuple(difference.pair for difference in members)
            plans.append(Plan(f"{over}: {variant} − {reference}", "pooled", pairs))
    return plans


def _tuned_arms(arms: Mapping[str, Arm], reference_of: Mapping[str, str]) -> list[Arm]:
    """Return the arms that the family ``tuned`` compares with each other: those that ``tuning`` compares with a
    reference, and tuned arms without one. An arm that is itself a reference is left out."""
    number = Counter((arm.base, arm.variant) for arm in arms.values())
    return [
        arm
        for arm in _by_base(arms.values())
        if arm.name not in reference_of.values()
        and (
            (arm.name in reference_of and _family(arm) == "tuning")
            or (arm.variant == "tuned" and number[arm.base, "tuned"] == 1)
        )
    ]


def _open_pairs(arms: Mapping[str, Arm], bases: Sequence[_Base], plans: Sequence[Plan]) -> list[tuple[str, str]]:
    """Return the pairs of the family ``arms``: of one base, those with an arm that is unclear or that ``plans`` compare
    with no other arm of the base; and every pair with an arm that is in no contrast at all."""
    planned = {frozenset(pair) for plan in plans if plan.family in (*WITHIN_BASES, "tuned") for pair in plan.pairs}
    compared = _names(plan for plan in plans if plan.family in WITHIN_BASES)
    in_base: set[frozenset[str]] = set()
    for base in bases:
        names = [arm.name for arm in base.arms]
        unclear = {arm.name for arm in base.unclear} | {name for name in names if name not in compared}
        in_base |= {frozenset(pair) for pair in combinations(names, 2) if unclear & set(pair)} - planned
    somewhere = _names(plans).union(*in_base)
    return [
        (a, b)
        for a, b in combinations(arms, 2)
        if frozenset((a, b)) in in_base or a not in somewhere or b not in somewhere
    ]


def _names(plans: Iterable[Plan]) -> set[str]:
    """Return the names of the arms in ``plans``."""
    return {name for plan in plans for pair in plan.pairs for name in pair}


def _by_base(arms: Iterable[Arm]) -> list[Arm]:
    """Return ``arms`` sorted by base, variant and name."""
    return sorted(arms, key=lambda arm: (arm.base, arm.variant, arm.name))


def _id(arm: Arm, reference: Arm) -> str:
    """Return ``BASE: VARIANT − VARIANT``, or the arms' names if their bases or variants do not allow it."""
    if not (arm.variant and reference.variant) or arm.base != reference.base:
        return f"{arm.name} − {reference.name}"
    change = f"{arm.variant} − {reference.variant}"
    return f"{arm.base}: {change}" if arm.base else change


def _tuned_id(first: Arm, second: Arm) -> str:
    """Return ``tuned: BASE − BASE``, or the arms' names if they are not two tuned arms of two named bases."""
    bases = (first.base, second.base)
    if first.variant == second.variant == "tuned" and all(bases) and len(set(bases)) == 2:
        return f"tuned: {first.base} − {second.base}"
    return f"{first.name} − {second.name}"


def _with_unique_ids(plans: Sequence[Plan]) -> list[Plan]:
    """Return ``plans`` with an id each. Those that share one get the arms' names; what is still the same gets its
    family before it (a pair may be in ``tuning`` and in ``reference``), or else a number behind it."""
    number = Counter(plan.id for plan in plans)
    taken: set[str] = set()
    unique = []
    for plan in plans:
        name = plan.id
        if number[name] > 1 and len(plan.pairs) == 1:
            name = " − ".join(plan.pairs[0])
        candidates = chain((name, f"{plan.family}: {name}"), (f"{name} ({again})" for again in count(2)))
        chosen = next(candidate for candidate in candidates if candidate not in taken)
        taken.add(chosen)
        unique.append(replace(plan, id=chosen))
    return unique
