"""Score sessions that exist already: any corpus of transcripts, with the rater an evaluation would use."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

import cbtrain
from cbtrain.config.schema import StudyConfig
from cbtrain.console import say, table_of
from cbtrain.errors import UserError
from cbtrain.eval.analysis.descriptives import session_groups
from cbtrain.eval.analysis.ratings import ratings_of
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.report.formatting import fixed
from cbtrain.eval.report.schema.training import ReportCosts
from cbtrain.eval.report.terminal import costs_line
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.providers import check
from cbtrain.providers.summary import costs
from cbtrain.study.consent import require_consent, stays_here
from cbtrain.study.evaluation.failures import refuse_if_none_ratable, refuse_many_failures
from cbtrain.study.evaluation.judges import Jury, jury_of
from cbtrain.study.evaluation.run_context import RunContext, open_run
from cbtrain.study.evaluation.score import score_sessions
from cbtrain.study.evaluation.score_tables import table_name, write_tables
from cbtrain.study.evaluation.scores import drop_changing_columns, records
from cbtrain.transcripts.config import TranscriptsConfig
from cbtrain.transcripts.labels import NAME_THE_LABELS
from cbtrain.transcripts.reading import read_configured


def rate_corpus(config: StudyConfig, folder: Path, console: Console, *, allow_upload: bool = False) -> Path:
    """Rate every session of ``config.corpus`` as it is labelled and write ``folder/scores.csv``, with the rubric beside
    it; returns the path of the scores.

    Paid ratings are journalled in ``folder``: an interrupted run continues. Raises UserError on a corpus that cannot be
    read, and if it would have to be sent away without ``allow_upload``; and, once everything is written, if more
    ratings are missing than ``evaluation.max_failures`` allows.
    """
    jury = check_rating(config, allow_upload=allow_upload)
    for note in jury.notes:
        say(console, f"note: {note}")
    sessions = read_records(config, console)
    by_instrument, spent, run = asyncio.run(rate_records(sessions, jury, config, folder, console))
    scores = [score for found in by_instrument.values() for score in found]
    refuse_if_none_ratable(scores, run)
    write_tables(jury, by_instrument, folder)
    arms = Counter(session.arm for session in sessions)
    for instrument, found in by_instrument.items():
        _show(jury, instrument, found, arms, console)
    if spent:
        console.print(costs_line(ReportCosts.model_validate(spent)), highlight=False, markup=False)
    credit = f"Rated by: {jury.label}, on the sessions as labelled, not cleaned"
    paths = [folder / table_name(jury, instrument) for instrument in by_instrument]
    tables = "\n".join(f"scores: {path}" for path in paths)
    console.print(f"{credit}\n{cbtrain.NOTICE}\n\n{tables}", highlight=False, markup=False)
    if len(arms) > 1:
        console.print(f"next: {_next_step(config.corpus, paths[0])}", highlight=False, markup=False, soft_wrap=True)
    refuse_many_failures([], scores, run)
    return paths[0]


def _show(jury: Jury, instrument: str, scores: Sequence[Score], arms: Counter[str], console: Console) -> None:
    """Print the totals by ``instrument`` of each arm, and by judge if there are several."""
    judges, several = jury.instruments[instrument], len(jury.instruments) > 1
    rubric = judges[0].rubric
    if several:
        console.print(f"\n{rubric.name}", highlight=False, markup=False)
    head = ["", *(["judge"] if len(judges) > 1 else []), "sessions", "rated", "total, mean", "SD"]
    table = table_of(*head, numbers=4)
    for judge in judges:
        own = [score for score in scores if score.judge == judge.name]
        for group in session_groups(ratings_of(own, rubric.ids, arms, rubric)):
            numbers = (f"{arms[group.name]:,}", f"{group.n:,}", fixed(group.mean, 2), fixed(group.sd, 2))
            table.add_row(escape(group.name), *([escape(judge.name)] if len(judges) > 1 else []), *numbers)
    console.print(table)


def _next_step(corpus: TranscriptsConfig, scores: Path) -> str:
    """Return the command that analyses ``scores``, with the transcripts if it can read them."""
    command = f"cbtrain analyze {scores}"
    if corpus.therapist_labels or corpus.patient_labels or corpus.map.given or corpus.format != "auto":
        return command
    return f"{command} --transcripts {corpus.path}" + (f" --metadata {corpus.metadata}" if corpus.metadata else "")


def check_rating(config: StudyConfig, *, allow_upload: bool) -> Jury:
    """Return the judges that ``config`` names. Raises UserError if one cannot rate or has no key, or if transcripts
    would have to be sent to it without ``allow_upload``."""
    jury = jury_of(config.evaluation, config.providers)
    for judge in jury.apis:
        assert judge.api is not None
        check_reader(config, judge.role, judge.api, allow_upload=allow_upload)
    return jury


def check_reader(config: StudyConfig, role: str, api: ProviderConfig, *, allow_upload: bool) -> None:
    """Raise UserError if ``api`` cannot be asked, or if transcripts would be sent to it without ``allow_upload``."""
    check(config.providers, [(role, api)])
    allowed = allow_upload or stays_here(config.providers)
    require_consent(config.corpus.path, "its transcripts", api.base_url, allowed)


def read_records(config: StudyConfig, console: Console) -> list[SimulatedSession]:
    """Return every session of ``config.corpus``; print what was left out. Raises UserError on what cannot be read, and
    if both speakers are found in no session."""
    settings = config.corpus
    corpus = read_configured(settings)
    for line in (*corpus.skipped, *corpus.notes):
        console.print(f"left out: {line}", highlight=False, markup=False, soft_wrap=True)
    sessions = list(records(corpus.sessions()))
    for line in drop_changing_columns(sessions):
        console.print(f"left out: {line}", highlight=False, markup=False, soft_wrap=True)
    reasons = [why_unratable(session.turns, session.labels_seen) for session in sessions]
    if sessions and all(reasons):
        (reason, _), *_ = Counter(reasons).most_common(1)
        what = f"no session can be rated ({reason.removesuffix(f'; {NAME_THE_LABELS}')})"
        raise UserError(what, where=settings.path, hint=f"{NAME_THE_LABELS[0].upper()}{NAME_THE_LABELS[1:]}.")
    return sessions


async def rate_records(
    sessions: Sequence[SimulatedSession], jury: Jury, config: StudyConfig, folder: Path, console: Console
) -> tuple[dict[str, list[Score]], dict[str, Any] | None, RunContext]:
    """Return the scores of ``sessions`` by instrument, journalled in ``folder``; the costs (None if no API was asked);
    the run, which has ended."""
    async with open_run(config, folder, console) as run:
        scores = await score_sessions(sessions, jury, run)
        return scores, costs(run.providers), run
