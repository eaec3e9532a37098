"""Sessions of evaluations, each with its score by those who count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cbtrain.errors import UserError
from cbtrain.eval.analysis.agreement.panel import panel_of, panel_scores
from cbtrain.eval.rating.people import PERSON
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.evaluation.scores import ScoredStudy, load_scores, records
from cbtrain.study.pairs.run_plan import RunPlan, read_plan
from cbtrain.study.run_files import TRANSCRIPTS
from cbtrain.transcripts.reading import read


@dataclass(frozen=True, slots=True)
class RatedSession:
    """``run``: the name of its run's folder, ``plan`` its plan. ``score``: its total, the mean over those who rate,
    None without one."""

    run: str
    session: SimulatedSession
    plan: RunPlan
    score: float | None = None

    @property
    def name(self) -> str:
        return f"{self.run}/{self.session.id}"

    def facts(self, which: str) -> dict[str, str]:
        """Return where the answer ``which`` (chosen, rejected) comes from."""
        session = self.session
        facts = {"run": self.run, "session": session.id, "arm": session.arm, "seed": str(session.seed)}
        facts |= {"score": f"{self.score:g}"} if self.score is not None else {}
        facts = {f"{which}_{name}": text for name, text in facts.items()}
        return facts | self.plan.model_facts(session, which)


@dataclass(frozen=True, slots=True)
class RatedRuns:
    """``instrument``: what rated, ``judges``: by whom; ``width``: points between the least and the highest total, None
    if the instrument is not known. ``notes``: what a reader has to know of the scores."""

    sessions: list[RatedSession]
    instrument: str
    judges: tuple[str, ...]
    width: float | None
    notes: list[str] = field(default_factory=list)


def run_names(runs: Sequence[Path]) -> list[str]:
    """Return the names of the folders ``runs``. Raises UserError if two are the same, or one is no folder."""
    for run in runs:
        if not run.is_dir():
            raise UserError("no such folder", where=run, hint="Name the folder of an evaluation.")
    names = [run.resolve().name for run in runs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two runs are called {twice!r}", where=runs[0], hint="Rename the folder of one of them.")
    return names


def read_sessions(run: Path) -> list[SimulatedSession]:
    """Return the sessions of ``run``. Raises UserError if there are none."""
    if not (run / TRANSCRIPTS).is_file():
        raise UserError(f"no {TRANSCRIPTS} in it", where=run, hint="`cbtrain evaluate` makes them.")
    return list(records(read(str(run / TRANSCRIPTS)).sessions()))


def read_rated(runs: Sequence[Path], *, judge: str | None = None, people: bool = False) -> RatedRuns:
    """Return the sessions of all ``runs`` with the scores of their primary judges, of one ``judge``, or of ``people``.
    Raises UserError if one has no sessions or scores, or was rated by others or with another instrument."""
    parts = [
        _rated(run, name, load_scores([run], judge=judge), people=people)
        for run, name in zip(runs, run_names(runs), strict=True)
    ]
    first = parts[0]
    for run, part in zip(runs[1:], parts[1:], strict=True):
        for what, of_first, other in (
            ("by", first.judges, part.judges),
            ("with", (first.instrument,), (part.instrument,)),
        ):
            if of_first != other:
                problem = f"it was rated {what} {', '.join(other)}, and {runs[0]} {what} {', '.join(of_first)}"
                raise UserError(problem, where=run, hint="Scores are compared by the same judges and instrument only.")
    sessions = [session for part in parts for session in part.sessions]
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    return RatedRuns(sessions, first.instrument, first.judges, first.width, notes)


def _rated(run: Path, name: str, study: ScoredStudy, *, people: bool) -> RatedRuns:
    ratings, primary = study.ratings, study.primary_judges
    if people:
        ratings = ratings.only(np.array([str(one).startswith(PERSON) for one in ratings.judge], dtype=bool))
        primary = []
        if not len(ratings):
            raise UserError("nobody has rated its sessions", where=run, hint="`cbtrain rate export` asks people.")
    panel = panel_of(ratings, primary, rotating=study.rotating and not people)
    totals = panel_scores(ratings, panel, ratings.total)
    plan = read_plan(run)
    sessions = [
        RatedSession(name, session, plan, totals.get((session.arm, session.patient, session.slot)))
        for session in read_sessions(run)
    ]
    scale = ratings.scale
    width = (scale.high - scale.low) * ratings.weight if scale else None
    instrument = study.instrument.name if study.instrument else ", ".join(ratings.item_names)
    return RatedRuns(sessions, instrument, tuple(panel.judges), width, [note for note in (panel.note,) if note])
