"""Read a corpus whose validation or test part lies in a file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cbtrain.transcripts.config import TranscriptsConfig
from cbtrain.transcripts.preference import refuse_mixed
from cbtrain.transcripts.reading import read_configured
from cbtrain.transcripts.types import OWN_SIDES, Corpus, Course, OwnSide


def read_parts(settings: TranscriptsConfig) -> tuple[Corpus, list[str]]:
    """Return the corpus at ``settings.path`` with those of ``settings.validation`` and ``settings.test``, which keep
    their part (:attr:`Corpus.sides`), and a line on each of these to show the user.

    Course ids of different files say nothing about each other: one that is taken already gets its part's name in front.
    The metadata table is that of ``settings.path``. Raises UserError as :func:`read_configured` does.
    """
    corpus, lines = _read(settings.path, settings), []
    for side in OWN_SIDES:
        path = getattr(settings, side)
        if path is not None:
            part = _read(path, settings)
            refuse_mixed(next(corpus.sessions()), next(part.sessions()))
            corpus, line = _joined(corpus, part, side)
            lines.append(line)
    return corpus, lines


def _read(path: str, settings: TranscriptsConfig) -> Corpus:
    metadata = settings.metadata if path == settings.path else None  # its files are those inside one folder
    return read_configured(settings.model_copy(update={"path": path, "metadata": metadata}))


def _joined(corpus: Corpus, part: Corpus, side: OwnSide) -> tuple[Corpus, str]:
    courses = _renamed(part.courses, {course.id for course in corpus.courses}, side)
    line = f"{side}: {len(courses)} courses of {part.source}; split.{side} is not used"
    renamed = sum(new.id != old.id for new, old in zip(courses, part.courses, strict=True))
    if renamed:
        line += f". Course ids that another file has too: {renamed}, called {side}/ID, and taken for other patients'"
    return replace(
        corpus,
        courses=(*corpus.courses, *courses),
        skipped=(*corpus.skipped, *part.skipped),
        notes=(*corpus.notes, *(f"{side}: {note}" for note in part.notes)),
        sides={**corpus.sides, **{course.id: side for course in courses}},
    ), line


def _renamed(courses: Sequence[Course], others: set[str], side: OwnSide) -> list[Course]:
    """Return ``courses`` with ids that are not among ``others``."""
    taken = others | {course.id for course in courses}
    renamed = []
    for course in courses:
        name = course.id
        if name in others:
            while name in taken:
                name = f"{side}/{name}"
            taken.add(name)
        renamed.append(_with_id(course, name))
    return renamed


def _with_id(course: Course, name: str) -> Course:
    if course.id == name:
        return course
    sessions = tuple(replace(session, course=name) for session in course.sessions)
    profile = course.profile.model_copy(update={"course": name}) if course.profile else None
    return Course(name, sessions, profile)
