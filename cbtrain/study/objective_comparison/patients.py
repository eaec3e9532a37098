"""Who is treated in the evaluation of a comparison: nobody whose pairs were trained on."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.errors import UserError, first_of
from cbtrain.study.corpus import load_corpus
from cbtrain.study.evaluation.treated import named_patients
from cbtrain.transcripts.writing import write_sessions

HINT = "Name a library or a file with settings.evaluation.patients."


def write_patients(study: StudyConfig, folder: Path, trained: Collection[str], console: Console) -> Path | None:
    """Write the held-out patients of the corpus of ``study`` to ``folder`` and return it; None if ``study`` names
    patients itself. Raises UserError if there are none, or if one of them is among ``trained``."""
    named = named_patients(study, partial(say, console))
    if named is not None:
        _refuse_trained(named.names, trained)
        return None
    courses = load_corpus(study, Console(quiet=True)).split.test
    if not courses:
        raise UserError("no held-out patients to treat", where=study.corpus.path, hint=HINT)
    profiles = [course.profile for course in courses if course.profile]
    _refuse_trained({course.id: course.profile.name if course.profile else "" for course in courses}, trained)
    write_sessions((session for course in courses for session in course.sessions), profiles, folder)
    return folder


def _refuse_trained(names: dict[str, str], trained: Collection[str]) -> None:
    folded = {patient.casefold() for patient in trained}
    seen = [patient for patient, name in names.items() if {patient.casefold(), name.casefold()} & folded]
    if seen:
        problem = f"patients to be treated are those of pairs that are trained on: {', '.join(first_of(seen, 3))}"
        raise UserError(problem, where="evaluation.patients", hint="Leave them out of one of the two.")
