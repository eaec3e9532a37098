"""Score sessions that exist already: any corpus of transcripts, with the rater an evaluation would use."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cbtrain
from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.eval.analysis.descriptives import session_groups
from cbtrain.eval.analysis.ratings import ratings_of
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import Score, write_scores_csv
from cbtrain.eval.report.formatting import fixed
from cbtrain.eval.report.schema.training import ReportCosts
from cbtrain.eval.report.terminal import costs_line
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.providers.providers import check
from cbtrain.providers.summary import costs
from cbtrain.study.consent import require_consent, stays_here
from cbtrain.study.evaluation.failures import refuse_if_none_ratable, refuse_many_failures
from cbtrain.study.evaluation.run_context import RunContext, open_run
from cbtrain.study.evaluation.score import score_sessions, uses_llm_judge
from cbtrain.study.evaluation.scores import drop_changing_columns, records
from cbtrain.study.run_files import SCORES
from cbtrain.transcripts.config import TranscriptsConfig
from cbtrain.transcripts.labels import NAME_THE_LABELS
from cbtrain.transcripts.reading import read_configured


def rate_corpus(config: StudyConfig, folder: Path, console: Console, *, allow_upload: bool = False) -> Path:
    """Rate every session of ``config.corpus`` as it is labelled and write ``folder/scores.csv``; returns its path.

    Paid ratings are journalled in ``folder``: an interrupted run continues. Raises UserError on a corpus that cannot be
    read, and if it would have to be sent away without ``allow_upload``; and, once everything is written, if more
    ratings are missing than ``evaluation.max_failures`` allows.
    """
    check_rating(config, allow_upload=allow_upload)
    rubric = load_rubric(config.evaluation.judging.rubric)
    sessions = read_records(config, console)
    scores, rater, spent, run = asyncio.run(rate_records(sessions, rubric, config, folder, console))
    refuse_if_none_ratable(scores, run)
    path = folder / SCORES
    write_scores_csv(scores, path)
    table = Table("", "sessions", "rated", "total, mean", "SD", box=box.SIMPLE_HEAD, show_edge=False)
    arms = Counter(session.arm for session in sessions)
    items = [domain.id for domain in rubric.domains]
    for group in session_groups(ratings_of(scores, items, arms, rubric)):
        numbers = (fixed(group.mean, 2), fixed(group.sd, 2))
        table.add_row(escape(group.name), f"{arms[group.name]:,}", f"{group.n:,}", *numbers)
    console.print(table)
    if spent:
        console.print(costs_line(ReportCosts.model_validate(spent)), highlight=False, markup=False)
    credit = f"Rated by: {rater['label']}, on the sessions as labelled, not cleaned"
    console.print(f"{credit}\n{cbtrain.NOTICE}\n\nscores: {path}", highlight=False, markup=False)
    if len(arms) > 1:
        console.print(f"next: {_next_step(config.corpus, path)}", highlight=False, markup=False, soft_wrap=True)
    refuse_many_failures([], scores, run)
    return path


def _next_step(corpus: TranscriptsConfig, scores: Path) -> str:
    """Return the command that analyses ``scores``, with the transcripts if it can read them."""
    command = f"cbtrain analyze {scores}"
    if corpus.therapist_labels or corpus.patient_labels or corpus.map.given or corpus.format != "auto":
        return command
    return f"{command} --transcripts {corpus.path}" + (f" --metadata {corpus.metadata}" if corpus.metadata else "")


def check_rating(config: StudyConfig, *, allow_upload: bool) -> None:
    """Raise UserError if the judge that ``config`` names has no key, or the transcripts would have to be sent to it
    without ``allow_upload``."""
    judging = config.evaluation.judging
    if uses_llm_judge(judging, config.providers):
        check(config.providers, [("judge", judging.provider)])
        allowed = allow_upload or stays_here(config.providers)
        require_consent(config.corpus.path, "its transcripts", judging.provider.base_url, allowed)


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
    sessions: Sequence[SimulatedSession], rubric: Rubric, config: StudyConfig, folder: Path, console: Console
) -> tuple[list[Score], dict[str, str], dict[str, Any] | None, RunContext]:
    """Return the scores of ``sessions``, journalled in ``folder``; the rater; the costs (None if no API was asked); the
    run, which has ended."""
    async with open_run(config, folder, console) as run:
        scores, rater = await score_sessions(sessions, rubric, run)
        return scores, rater, costs(run.providers), run
