"""Split a corpus by patient: no patient, and no near-duplicate session, ever stands on two sides.

Only files of one's own can break this: what they share is found, and reported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError, nearest
from cbtrain.files import expanded
from cbtrain.transcripts.config import SplitConfig
from cbtrain.transcripts.duplicates import DuplicateFinder
from cbtrain.transcripts.mapping.shapes import listed
from cbtrain.transcripts.openings import Openings
from cbtrain.transcripts.pair_counts import beginning_digest
from cbtrain.transcripts.source import parse_json, read_text
from cbtrain.transcripts.types import Corpus, Course

SIDES = ("train", "validation", "test")
SPLIT_SCHEMA = "cbtrain.split/1"
ALIASES = {"severity": "Symptom_Severity", "engagement": "Engagement_Level"}
"""Short names of the 2024 study's characteristics."""

LONGEST_STRATUM = 60
"""Characters of a fact that may be a characteristic."""

Group = tuple[Course, ...]
"""Courses that stay together: one patient's, or with near-duplicate sessions."""


@dataclass(frozen=True, slots=True)
class Split:
    """Three sides, each in the order of the corpus; ``together`` names groups of several courses and why.
    ``leaks`` names patients and near-duplicate sessions that stand on two sides because a side has a file of its own,
    ``alike`` patients of two sides who open alike, and may be one.
    """

    train: tuple[Course, ...]
    validation: tuple[Course, ...]
    test: tuple[Course, ...]
    together: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()

    def ids(self) -> dict[str, list[str]]:
        """Course ids by side."""
        return {side: [course.id for course in getattr(self, side)] for side in SIDES}


def split(corpus: Corpus, config: SplitConfig) -> Split:
    """Divide the courses of ``corpus`` into train, validation and test.

    Every patient has a number from [0, 1) of their own, a hash of the seed and the patient. Below the test share they
    go to test, above it and below the sum of the shares to validation. A patient who is added therefore moves no other,
    unless sessions nearly repeat a known one's; shares hold on average, and a side that would be empty (in a corpus of
    few patients) gets the patient next to it, unless its share is 0.
    With ``stratify`` shares hold within one patient overall and as nearly as can be in each stratum; then only
    ``keep`` (an earlier split) promises that nobody moves. Courses in ``corpus.sides`` have their side already.

    Raises UserError where a side cannot be filled, on a listed id that is not there, on patients who must be together
    but are listed apart, and on a characteristic that profiles lack.
    """
    links = _linked(corpus.courses, config, corpus.sides)
    groups = links.groups
    shares = _shares(config, corpus.sides)
    sides: dict[int, str] = {id(g): corpus.sides[g[0].id] for g in groups if g[0].id in corpus.sides}
    free = [group for group in groups if id(group) not in sides]
    listed = _listed(config, corpus.sides)
    wanted = ["train", *(side for side in SIDES[1:] if side in shares or listed.get(side))]
    if len(free) < len(wanted):
        raise _too_few(free, wanted, corpus.source)
    sides |= _fixed(free, listed, config.keep)
    free = sorted((group for group in free if id(group) not in sides), key=lambda group: _number(config.seed, group))
    if config.stratify:
        _assign_by_strata(free, shares, config.stratify, sides)
    else:
        _assign_by_number(free, shares, config.seed, sides)
    _fill_empty_sides(free, shares, sides)
    order = {course.id: number for number, course in enumerate(corpus.courses)}
    courses: dict[str, list[Course]] = {side: [] for side in SIDES}
    for group in groups:
        courses[sides.get(id(group), "train")] += group
    empty = next((side for side in wanted if not courses[side]), None)
    if empty:
        problem = f"no patient is left for {empty} in one part of {len(groups)}"
        raise UserError(problem, where=corpus.source, hint="Lower split.test or split.validation.")
    train, validation, test = (tuple(sorted(courses[s], key=lambda course: order[course.id])) for s in SIDES)
    parts = Split(train, validation, test, tuple(links.together), tuple(links.leaks))
    return replace(parts, alike=tuple(_alike_on_two_sides(parts, links.alike)))


def _listed(config: SplitConfig, own: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the course ids that the user lists for each side, but for those that have a file of their ``own``."""
    settings = {side: getattr(config, side) for side in SIDES[1:] if side not in own.values()}
    return {side: setting for side, setting in settings.items() if isinstance(setting, list)}


def _shares(config: SplitConfig, own: Mapping[str, str]) -> dict[str, float]:
    """Return the shares of test and validation that are to be drawn: not of those that are listed, 0, or have a file of
    their ``own``. Raises UserError on shares that cannot be."""
    shares: dict[str, float] = {}
    for side in ("test", "validation"):
        share = getattr(config, side)
        if isinstance(share, list) or side in own.values():
            continue
        if not 0 <= share < 1:
            hint = "0.1 is a tenth, 0 is nobody."
            raise UserError(f"{share} is not a share between 0 and 1", where=f"split.{side}", hint=hint)
        if share:
            shares[side] = share
    if sum(shares.values()) >= 1:
        problem = f"test and validation take {sum(shares.values()):.0%} of the patients"
        raise UserError(problem, where="split", hint="Leave some to train on.")
    return shares


def _too_few(groups: Sequence[Sequence[Course]], wanted: Sequence[str], where: str) -> UserError:
    parts = {1: "one part", 2: "two parts", 3: "three parts"}[len(wanted)]
    names = f"{', '.join(wanted[:-1])} and {wanted[-1]}".capitalize()
    patients = f"{len(groups)} patient{'s' * (len(groups) != 1)}"
    ids = {next((s.patient for s in course.sessions if s.patient), course.id) for g in groups for course in g}
    if len(ids) > len(groups):
        patients = f"{len(ids):,} patients, who count as {len(groups)} since sessions or openings are nearly the same,"
    hint = f"{names} need at least one patient each."
    if spare := [f"split.{side}=0" for side in wanted[1:]]:
        hint += f" To leave one out: {' or '.join(spare)}."
    return UserError(f"{patients} cannot be divided into {parts}", where=where, hint=hint)


def dump_split(parts: Split, source: str, config: SplitConfig) -> str:
    """``split.json``: course ids by side, for ``split.keep``."""
    content = {"schema": SPLIT_SCHEMA, "corpus": source, "seed": config.seed, **parts.ids()}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def load_split(path: str | Path) -> dict[str, list[str]]:
    """Course ids by side from ``split.json``, or from the ``study.json`` of a run. Raises UserError on another file."""
    file = expanded(path)
    file = file / "split.json" if file.is_dir() else file
    content = parse_json(read_text(file), file)
    if isinstance(content, dict) and isinstance(content.get("corpus"), dict):
        content = content["corpus"].get("split")
    if not isinstance(content, dict) or not all(_is_ids(content.get(side)) for side in SIDES):
        raise UserError("not a split", where=file, hint="`cbtrain corpus split --out` writes one.")
    return {side: content[side] for side in SIDES}


@dataclass(frozen=True, slots=True)
class _Links:
    """Courses in ``groups`` that stay together. ``together`` says what was joined, ``leaks`` what could not be because
    its side is fixed; ``alike`` are pairs of session ids that open alike and were not joined."""

    groups: list[Group]
    together: list[str]
    leaks: list[str]
    alike: list[tuple[str, str]]


def _linked(courses: Sequence[Course], config: SplitConfig, own: Mapping[str, str]) -> _Links:
    """Join courses by patient, by near-duplicate sessions and, if asked, by near-duplicate openings: courses in ``own``
    to those of their side only."""
    finder, openings = DuplicateFinder(), Openings()
    session_ids: list[str] = []
    leader = list(range(len(courses)))
    side = [own.get(course.id, "") for course in courses]
    course_of: dict[str, int] = {}

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first_of: dict[tuple[str, str], int] = {}
    begun_by: dict[tuple[bytes, str], int] = {}
    alike_prompts: dict[int, list[str]] = {}
    """Pairs without a patient whose prompts begin as that of an earlier course does."""
    together, leaks, alike = [], [], []

    def join(later_session: str, earlier_session: str, how: str) -> None:
        later, earlier = course_of[later_session], course_of[earlier_session]
        if side[later] != side[earlier]:
            leaks.append(f"{later_session} {how} {earlier_session}")
        elif find(later) != find(earlier):
            pair = f"{courses[earlier].id} and {courses[later].id}"
            together.append(f"{pair}: {later_session} {how} {earlier_session}")
            leader[find(later)] = find(earlier)

    for index, course in enumerate(courses):
        for patient in dict.fromkeys([course.patient, *(session.patient or course.id for session in course.sessions)]):
            leader[find(index)] = find(first_of.setdefault((patient, side[index]), index))
        for session in course.sessions:
            # Pairs of one dialogue are one patient's.
            if session.preference is not None and session.preference.begin and not session.patient:
                begun = begun_by.setdefault((beginning_digest(session), side[index]), index)
                if find(index) != find(begun):
                    alike_prompts.setdefault(begun, []).append(course.id)
                    leader[find(index)] = find(begun)
        for session in course.sessions:
            finder.add(session)
            session_ids.append(session.id)
            course_of[session.id] = index
        if course.sessions:
            openings.add(course.sessions[0])
    for patient, sides in _sides_by_patient(first_of).items():
        leaks.append(f"patient {patient} is in {' and in '.join(sides)}")
    for (digest, own_side), index in begun_by.items():
        if own_side and (other := begun_by.get((digest, ""))) is not None:
            leaks.append(f"the prompt of {courses[index].id} begins as that of {courses[other].id}")
    repeats: set[frozenset[str]] = set()
    for double in finder.pairs(config.near_duplicate):
        later_session, earlier_session = session_ids[double.index], session_ids[double.other]
        join(later_session, earlier_session, "is much like")
        repeats.add(frozenset((later_session, earlier_session)))
    for pair in openings.pairs(config.near_duplicate):
        if frozenset(pair) in repeats:
            continue  # said already, and more than that they open alike
        if config.openings == "join":
            join(*pair, "opens like")
        else:
            alike.append(pair)
    groups: dict[int, list[Course]] = {}
    for index, course in enumerate(courses):
        groups.setdefault(find(index), []).append(course)
    together += [
        f"{', '.join(course.id for course in group)}: one patient"
        for group in groups.values()
        if len(group) > 1 and len({course.patient for course in group}) == 1
    ]
    together += [
        f"{listed([courses[first].id, *others])}: pairs without a patient whose prompts begin alike"
        for first, others in alike_prompts.items()
    ]
    return _Links([tuple(group) for group in groups.values()], together, leaks, alike)


def _alike_on_two_sides(parts: Split, alike: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the pairs of sessions that open alike and stand on two sides."""
    side_of = {s.id: side for side in SIDES for course in getattr(parts, side) for s in course.sessions}
    for later, earlier in alike:
        if side_of[later] != side_of[earlier]:
            yield f"{later} ({side_of[later]}) opens like {earlier} ({side_of[earlier]})"


def _sides_by_patient(known: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the patients of several files, with the files: the corpus, or a side's own."""
    sides: dict[str, list[str]] = {}
    for patient, side in known:
        sides.setdefault(patient, []).append(f"corpus.{side or 'path'}")
    return {patient: names for patient, names in sides.items() if len(names) > 1}


def _fixed(groups: Sequence[Group], listed: Mapping[str, list[str]], keep: str | None) -> dict[int, str]:
    """Return the sides of groups that an earlier split or a list decides, by the identity of the group."""
    course_ids = {course.id for group in groups for course in group}
    wanted: dict[str, str] = {}
    if keep is not None:
        wanted = {course: side for side, ids in load_split(keep).items() for course in ids if course in course_ids}
    for side, courses in listed.items():
        for course in courses:
            if course not in course_ids:
                raise UserError(f"no course {course!r}", where=f"split.{side}", hint=nearest(course, course_ids))
            if wanted.get(course, side) != side:
                problem = f"{course!r} is in {side} and in {wanted[course]}"
                raise UserError(problem, where="split", hint="List it in one of them.")
            wanted[course] = side
    sides: dict[int, str] = {}
    for group in groups:
        sides_of_group = {wanted[course.id]: course.id for course in group if course.id in wanted}
        if len(sides_of_group) > 1:
            (first_side, first), (second_side, second), *_ = sides_of_group.items()
            both = f"{first!r} ({first_side}) and {second!r} ({second_side})"
            problem = f"{both} are the same patient or have near-duplicate sessions"
            raise UserError(problem, where="split", hint="Put them on one side, or raise split.near_duplicate.")
        if sides_of_group:
            sides[id(group)] = next(iter(sides_of_group))
    return sides


def _assign_by_number(free: Sequence[Group], shares: Mapping[str, float], seed: int, sides: dict[int, str]) -> None:
    for group in free:
        number, border = _number(seed, group), 0.0
        for side, share in shares.items():
            border += share
            if number < border:
                sides[id(group)] = side
                break


def _fill_empty_sides(free: Sequence[Group], shares: Mapping[str, float], sides: dict[int, str]) -> None:
    """In a small corpus a side may be empty by chance: it gets the group whose number is nearest to its range."""

    def members(side: str) -> list[Group]:
        return [group for group in free if sides.get(id(group), "train") == side]

    for side in ("train", *shares):
        if members(side) or side in sides.values():
            continue
        # Numbers rise from test over validation to train.
        donors = {"train": ("validation", "test"), "validation": ("train", "test"), "test": ("validation", "train")}
        for donor in donors[side]:
            if len(members(donor)) > 1:
                taken = members(donor)[-1 if SIDES.index(side) < SIDES.index(donor) else 0]
                sides[id(taken)] = side
                break


def _assign_by_strata(
    free: Sequence[Group], shares: Mapping[str, float], names: Sequence[str], sides: dict[int, str]
) -> None:
    """Systematic sampling from the groups in the order of their strata, by number within each."""
    rest = sorted(free, key=lambda group: _stratum(group, names))
    total = len(rest)
    for side, share in shares.items():
        step = share * total / max(1, len(rest))
        chosen = [group for index, group in enumerate(rest) if int((index + 1) * step + 0.5) > int(index * step + 0.5)]
        sides.update((id(group), side) for group in chosen)
        rest = [group for group in rest if id(group) not in sides]


def _stratum(group: Group, names: Sequence[str]) -> tuple[str, ...]:
    values = []
    for name in names:
        value = next(filter(None, (characteristic(course, name) for course in group)), "")
        if not value:
            has = ", ".join(dict.fromkeys(key for course in group for key in _characteristics(course)))
            raise UserError(
                f"{group[0].id} has no characteristic {name!r}",
                where="split.stratify",
                hint=f"It has {has}." if has else "It has no profile; a metadata table (corpus.metadata) can say it.",
            )
        values.append(value.lower())
    return tuple(values)


def characteristic(course: Course, name: str) -> str:
    """Return what the patient's profile says of ``name``, else the first fact of that name of their sessions; empty if
    neither does."""
    profile = course.profile
    value = profile.first(ALIASES.get(name.lower(), name)) or profile.first(name) if profile else ""
    facts = ((key, fact) for session in course.sessions for key, fact in session.facts.items())
    return value or next((fact for key, fact in facts if key.casefold() == name.casefold()), "")


def _characteristics(course: Course) -> list[str]:
    """Return the names that :func:`characteristic` knows, without long facts."""
    facts = [key for session in course.sessions for key, fact in session.facts.items() if len(fact) <= LONGEST_STRATUM]
    return [*(course.profile.characteristics if course.profile else ()), *facts]


def _number(seed: int, group: Group) -> float:
    """From [0, 1), the same for a patient in every corpus; a group's is that of its first name."""
    name = min(course.patient for course in group)
    digest = hashlib.blake2b(f"{seed}|{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
