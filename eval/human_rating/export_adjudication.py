"""Write the form of adjudication: the sessions and domains on which people differ by much, for one more rater."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cbtrain
from cbtrain.eval.human_rating.adjudication import Dispute
from cbtrain.eval.human_rating.digests import digest_of, sessions_digest
from cbtrain.eval.human_rating.export import FormsOrigin, write_folder
from cbtrain.eval.human_rating.form import Opinion, make_form
from cbtrain.eval.human_rating.key import KEY_FILE, Key, KeyAdjudication, KeyRubric
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.files import require_new

FOLDER = "adjudicator"

README = """\
A form for settling large differences between raters, made by `cbtrain rate adjudicate`.

{notice}

Give the folder {folder} to one more rater, or open its form.html in a meeting of the raters. It asks only for the
domains on which two raters differ by more than {threshold:g} points. Earlier scores are {shown}.

KEEP key.json TO YOURSELF: it says which arm, patient and session each code stands for. To bring the ratings back:

  cbtrain rate import RATINGS --key key.json

The raters' own scores stay as they are; the settled ones become the judge "human: adjudicated".
"""


@dataclass(frozen=True, slots=True)
class AdjudicationSettings:
    """The table whose scores are settled, the threshold in points, whether the earlier scores are shown, and the seed
    of order and codes."""

    table: Path
    threshold: float
    show: bool
    seed: int = 0


def write_adjudication(
    disputes: Sequence[Dispute],
    sessions: Mapping[str, SimulatedSession],
    rubric: Rubric,
    folder: Path,
    origin: FormsOrigin,
    settings: AdjudicationSettings,
    evidence: Mapping[tuple[str, str], Mapping[str, list[int]]],
) -> Path:
    """Write the form of ``disputes`` to ``folder``, which must be new or empty, and return the path of its key.

    ``sessions``: by id; ``evidence``: the turns that raters marked, by session and judge, then domain. Raises UserError
    if ``folder`` is taken.
    """
    require_new(folder)
    said = [[one.first.session_id, sorted(one.said)] for one in disputes]
    chosen = [sessions[one.first.session_id] for one in disputes]
    random_key = "|".join(map(str, (settings.seed, sessions_digest(chosen, rubric), digest_of(said), settings.show)))
    order = random.Random(f"{random_key}|order").sample(range(len(disputes)), len(disputes))
    form, key_form = make_form([chosen[index] for index in order], rubric, 1, random_key)
    for place, index in enumerate(order):
        dispute = disputes[index]
        domains = [domain for domain in rubric.ids if domain in dispute.said]
        given = {domain: _opinions(dispute, domain, evidence) for domain in domains} if settings.show else {}
        form.sessions[place] = replace(form.sessions[place], domains=domains, given=given)
        key_form.sessions[place].domains = domains
    key = Key(
        cbtrain_version=cbtrain.__version__,
        source=origin.source,
        run=None if origin.run is None else str(origin.run),
        seed=settings.seed,
        rubric=KeyRubric.of(rubric, origin.rubric_name),
        forms=[key_form],
        adjudication=KeyAdjudication(table=str(settings.table.resolve()), threshold=settings.threshold),
    )
    shown = "shown, without names" if settings.show else "not shown"
    readme = README.format(notice=cbtrain.NOTICE, folder=FOLDER, threshold=settings.threshold, shown=shown)
    write_folder(folder, {FOLDER: replace(form, settles=True)}, key, readme)
    return folder / KEY_FILE


def _opinions(
    dispute: Dispute, domain: str, evidence: Mapping[tuple[str, str], Mapping[str, list[int]]]
) -> list[Opinion]:
    session = dispute.first.session_id
    return [
        Opinion(score, list(evidence.get((session, judge), {}).get(domain, [])))
        for judge, score in dispute.said[domain].items()
    ]
