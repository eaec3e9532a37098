"""A folder of rating forms: one sub-folder for each rater, and the key that stays with whoever runs the study."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cbtrain
from cbtrain.eval.human_rating.assignment import Assignment, deal
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
class Exported:
    """What :func:`write_forms` wrote: the deal, and each rater's folder with the id of the form in it."""

    deal: Assignment
    folders: list[tuple[Path, str]]
    key: Path


def write_forms(
    sessions: Sequence[SimulatedSession],
    rubric: Rubric,
    folder: Path,
    *,
    rubric_name: str,
    source: str,
    run: Path | None,
    wanted: int | None = None,
    raters: int = 2,
    overlap: int | None = None,
    seed: int = 0,
) -> Exported:
    """Write the forms of ``sessions`` to ``folder``, which must be new or empty; see :func:`deal` for the numbers.

    ``source`` and ``run`` go into the key: where the sessions came from, and beside which run's scores the ratings
    belong. The same sessions, rubric, numbers and seed give the same forms. Raises UserError as :func:`deal` does, and
    where ``folder`` is taken; nothing is left behind then.
    """
    require_new(folder)
    drawn_by = f"{seed}|{digest(sessions, rubric)}|{wanted}|{raters}|{overlap}"
    dealt = deal(sessions, wanted=wanted, raters=raters, overlap=overlap, seed=drawn_by)
    made = [make_form(hand, rubric, rater, drawn_by) for rater, hand in enumerate(dealt.by_rater, 1)]
    scale = KeyRubric(
        name=rubric_name,
        digest=rubric_digest(rubric),
        minimum=rubric.minimum,
        maximum=rubric.maximum,
        domains=[domain.id for domain in rubric.domains],
    )
    key = Key(
        cbtrain_version=cbtrain.__version__,
        source=source,
        run=None if run is None else str(run),
        seed=seed,
        rubric=scale,
        forms=[part for _, part in made],
    )
    try:
        with atomic_folder(folder) as temporary:
            (temporary / "README.txt").write_text(README.format(notice=cbtrain.NOTICE), encoding="utf-8")
            for form, part in made:
                _write_form(form, temporary / _folder_of(part))
        write_key(key, folder / KEY_FILE)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # forms without their key are of no use
        raise
    return Exported(dealt, [(folder / _folder_of(part), form.id) for form, part in made], folder / KEY_FILE)


def _folder_of(part: KeyForm) -> str:
    return f"rater-{part.rater}"


def _write_form(form: Form, folder: Path) -> None:
    folder.mkdir()
    (folder / "form.html").write_text(render_form(form), encoding="utf-8")
    (folder / "ratings.csv").write_text(ratings_csv(form), encoding="utf-8")
    (folder / "reading.txt").write_text(reading_text(form), encoding="utf-8")
