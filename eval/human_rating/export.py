"""Write a folder of rating forms: one sub-folder for each rater, and the key for the person who runs the study."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cbtrain
from cbtrain.eval.human_rating.assignment import Assignment, AssignmentSettings, assign
from cbtrain.eval.human_rating.csv_form import ratings_csv, reading_text, training_text
from cbtrain.eval.human_rating.digests import digest_of, sessions_digest
from cbtrain.eval.human_rating.form import Form, Opinion, TrainingSession, make_form, make_training
from cbtrain.eval.human_rating.key import KEY_FILE, Key, KeyRubric, write_key
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


OF_TRAINING = """
The first sessions of each form are for training. Their agreed scores are in training-answers.txt and, hidden until a
rater has rated the session, in form.html: whoever reads the source of the page finds them. The blind sessions are not
affected: nothing in a rater's folder says what they are.
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
    training: Sequence[TrainingSession] = (),
) -> Exported:
    """Write the forms of ``sessions``, behind those of the ``training``, to ``folder``, which must be new or empty.

    The same sessions, rubric, settings and training give the same forms. Raises UserError as :func:`assign` does, and
    if ``folder`` is taken; nothing is left behind then.
    """
    require_new(folder)
    later = [_digest_of_training(training)] if training else []
    words = [settings.seed, sessions_digest(sessions, rubric), *settings.words(), *later]
    random_key = "|".join(map(str, words))
    assignment = assign(sessions, settings, random_key)
    shown, training_key = make_training(training, rubric, random_key)
    forms = [
        make_form(rater_sessions, rubric, rater, random_key, shown)
        for rater, rater_sessions in enumerate(assignment.by_rater, 1)
    ]
    key = Key(
        cbtrain_version=cbtrain.__version__,
        source=origin.source,
        run=None if origin.run is None else str(origin.run),
        seed=settings.seed,
        rubric=KeyRubric.of(rubric, origin.rubric_name),
        forms=[key_form for _, key_form in forms],
        training=training_key,
    )
    readme = README.format(notice=cbtrain.NOTICE) + (OF_TRAINING if training else "")
    folders = {f"rater-{key_form.rater}": form for form, key_form in forms}
    write_folder(folder, folders, key, readme)
    return Exported(assignment, [(folder / name, form.id) for name, form in folders.items()], folder / KEY_FILE)


def write_folder(folder: Path, forms: Mapping[str, Form], key: Key, readme: str) -> None:
    """Write ``forms``, by the names of their folders, and their key to ``folder``; all of it or nothing."""
    try:
        with atomic_folder(folder) as temporary:
            (temporary / "README.txt").write_text(readme, encoding="utf-8")
            for name, form in forms.items():
                _write_form(form, temporary / name)
        write_key(key, folder / KEY_FILE)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # forms without their key are of no use
        raise


def _write_form(form: Form, folder: Path) -> None:
    folder.mkdir()
    (folder / "form.html").write_text(render_form(form), encoding="utf-8")
    (folder / "ratings.csv").write_text(ratings_csv(form), encoding="utf-8")
    (folder / "reading.txt").write_text(reading_text(form), encoding="utf-8")
    if form.training:
        (folder / "training-answers.txt").write_text(training_text(form), encoding="utf-8")


def _digest_of_training(training: Sequence[TrainingSession]) -> str:
    return digest_of([[one.session.id, one.note, _plain(one.opinions)] for one in training])


def _plain(opinions: Mapping[str, Opinion]) -> list[tuple[str, float | None, str]]:
    return [(domain, opinion.score, opinion.reason) for domain, opinion in opinions.items()]
