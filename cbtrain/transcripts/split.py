"""Split a corpus by patient: no patient ever stands on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cbtrain.errors import UserError, nearest
from cbtrain.transcripts.config import SplitConfig
from cbtrain.transcripts.types import Corpus, Course


@dataclass(frozen=True, slots=True)
class Split:
    train: tuple[Course, ...]
    validation: tuple[Course, ...]
    test: tuple[Course, ...]


def split(corpus: Corpus, config: SplitConfig) -> Split:
    """Courses in the order of a hash of (seed, course id): the first go to test, the next to validation.

    A share gives ``round(share × courses)`` courses, at least one. A course added to the corpus moves at most a few
    others across a border, and an order of files moves none. Raises UserError where fewer than one course would be
    left to train on, and on a listed id that is not there.
    """
    courses = corpus.courses
    if len(courses) < 3:
        patients = f"{len(courses)} patient{'s' * (len(courses) != 1)}"
        fix = "Training, validation and test need one patient each, at least 3."
        raise UserError(f"{patients} cannot be split by patient", where=corpus.source, fix=fix)
    ordered = sorted(courses, key=lambda course: _key(config.seed, course.id))
    listed = {i for part in (config.validation, config.test) if isinstance(part, list) for i in part}
    free = [course for course in ordered if course.id not in listed]
    test, free = _take(config.test, ordered, free, len(courses), "split.test")
    validation, free = _take(config.validation, ordered, free, len(courses), "split.validation")
    both = {course.id for course in test} & {course.id for course in validation}
    if both:
        raise UserError(f"{min(both)!r} is in test and in validation", where="split", fix="List it once.")
    if not free or not test or not validation:
        fix = "Lower split.test or split.validation."
        raise UserError(f"no patient is left in one part of {len(courses)}", where=corpus.source, fix=fix)
    order = {course.id: number for number, course in enumerate(courses)}
    sides = (sorted(side, key=lambda course: order[course.id]) for side in (free, validation, test))
    return Split(*(tuple(side) for side in sides))


def _take(
    wanted: float | list[str], ordered: Sequence[Course], free: list[Course], total: int, key: str
) -> tuple[list[Course], list[Course]]:
    if isinstance(wanted, list):
        known = {course.id: course for course in ordered}
        for course in wanted:
            if course not in known:
                raise UserError(f"no course {course!r}", where=key, fix=nearest(course, known))
        return [known[course] for course in wanted], free
    if not 0 < wanted < 1:
        raise UserError(f"{wanted} is not a share between 0 and 1", where=key, fix="0.1 holds out a tenth.")
    count = max(1, round(wanted * total))
    return free[:count], free[count:]


def _key(seed: int, course: str) -> bytes:
    return hashlib.blake2b(f"{seed}|{course}".encode(), digest_size=16).digest()
