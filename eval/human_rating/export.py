"""Write a folder of rating forms: one sub-folder for each rater, and the key for the person who runs the study."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cbtrain
from cbtrain.eval.human_rating.assignment import Assignment, AssignmentSettings, assign
from cbtrain.eval.human_rating.csv_form import ratings_csv, reading_text
from cbtrain.eval.human_rating.form import Form, digest, make_form, rubric_digest
from cbtrain.eval.human_rating.key import KEY_FILE, Key, KeyForm, KeyRubric, write_key
from cbtrain.eval.human_rating.page import render_form
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.files import atomic_folder, require_new

README = """\
Blind rating forms, made by `cbtrain rate export`.

{notice}

Give each rater ONE folder (rater-1, rater-2, …) and nothing else. A rater uses either

  form.html      a page that opens in any browser and needs no network; "Download my ratings" gives a JSON file, or
  ratings.csv    a spreadsheet to fill in, beside reading.txt, which has the scale and the dialogues.

KEEP key.json TO YOURSELF. It says which arm, patient and session each code stands for, so it lifts the blind. It is
needed to bring the ratings back:

  cbtrain rate import RATINGS… --key key.json

Whoever has the transcripts can still tell from the words which session is which: raters should not have the run folder.
Template and end marks were taken out of the dialogues; what speakers say about themselves was not.
"""


@dataclass(frozen=True, slots=True)
class FormsOrigin:
    """``source``: where the sessions came from; ``run``: the run folder whose scores the ratings belong to, if any;
    ``rubric_name`` as the user gave it. All three go into the key."""

    source: str
    run: Path | None
    rubric_name: str


@dataclass(frozen=True, slots=True)
class Exported:
    """The forms that :func:`write_forms` wrote: who rates which session, and each rater's folder with its form's id."""

    assignment: Assignment
    folders: list[tuple[Path, str]]
    key: Path


def write_forms(
    sessions: Sequence[SimulatedSession],
    rubric: Rubric,
    folder: Path,
    origin: FormsOrigin,
    settings: AssignmentSettings,
) -> Exported:
    """Write the forms of ``sessions`` to ``folder``, which must be new or empty.

    The same sessions, rubric and settings give the same forms. Raises UserError as :func:`assign` does, and if
    ``folder`` is taken; nothing is left behind then.
    """
    require_new(folder)
    random_key = "|".join(
        map(str, (settings.seed, digest(sessions, rubric), settings.sessions, settings.raters, settings.overlap))
    )
    assignment = assign(sessions, settings, random_key)
    forms = [
        make_form(rater_sessions, rubric, rater, random_key)
        for rater, rater_sessions in enumerate(assignment.by_rater, 1)
    ]
    scale = KeyRubric(
        name=origin.rubric_name,
        digest=rubric_digest(rubric),
        minimum=rubric.minimum,
        maximum=rubric.maximum,
        domains=[domain.id for domain in rubric.domains],
    )
    key = Key(
        cbtrain_version=cbtrain.__version__,
        source=origin.source,
        run=None if origin.run is None else str(origin.run),
        seed=settings.seed,
        rubric=scale,
        forms=[key_form for _, key_form in forms],
    )
    try:
        with atomic_folder(folder) as temporary:
            (temporary / "README.txt").write_text(README.format(notice=cbtrain.NOTICE), encoding="utf-8")
            for form, key_form in forms:
                _write_form(form, temporary / _folder_of(key_form))
        write_key(key, folder / KEY_FILE)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # forms without their key are of no use
        raise
    rater_folders = [(folder / _folder_of(key_form), form.id) for form, key_form in forms]
    return Exported(assignment, rater_folders, folder / KEY_FILE)


def _folder_of(key_form: KeyForm) -> str:
    return f"rater-{key_form.rater}"


def _write_form(form: Form, folder: Path) -> None:
    folder.mkdir()
    (folder / "form.html").write_text(render_form(form), encoding="utf-8")
    (folder / "ratings.csv").write_text(ratings_csv(form), encoding="utf-8")
    (folder / "reading.txt").write_text(reading_text(form), encoding="utf-8")
