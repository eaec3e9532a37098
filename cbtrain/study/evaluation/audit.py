"""Test a judge: sessions that exist already and changed copies of them, rated as `cbtrain judge score` rates them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

import cbtrain
from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.errors import UserError, nearest
from cbtrain.eval.judge_audit.asked_again import turned_round
from cbtrain.eval.judge_audit.audit import SCHEMA, Asked, Audited, audit, pick
from cbtrain.eval.judge_audit.probes import KINDS, copies, matching_of
from cbtrain.eval.judge_audit.summary import summary
from cbtrain.eval.judge_audit.writer import Written, materials, with_writer
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.report.judge_page import render_judge_audit
from cbtrain.eval.report.schema.training import ReportAudit
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.files import write_atomic
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.summary import costs
from cbtrain.study.evaluation.failures import AGAIN, refuse_many_failures
from cbtrain.study.evaluation.judges import Judge, Jury
from cbtrain.study.evaluation.rate import check_rating, check_reader, read_records
from cbtrain.study.evaluation.run_context import RunContext, open_run
from cbtrain.study.evaluation.score import score_sessions
from cbtrain.study.run_files import AUDIT, AUDIT_PAGE

WRITER = "writer"
"""The role of the writer model in costs and settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """``sessions``: most originals, drawn by ``seed``; ``kinds`` of tests; ``match``: domains of a rubric of one's own,
    as ``agenda=my_item``; ``writer``: the API of a writer model; ``judge``: which of several, None for the first."""

    sessions: int
    seed: int = 0
    kinds: Sequence[str] = tuple(KINDS)
    match: Sequence[str] = ()
    writer: ProviderConfig | None = None
    judge: str | None = None
    allow_upload: bool = False


@dataclass(frozen=True, slots=True)
class _Rated:
    audited: Audited
    written: Written
    asked: Asked
    judge: Judge
    spent: dict[str, Any] | None
    run: RunContext


def audit_rater(config: StudyConfig, folder: Path, console: Console, settings: AuditSettings) -> dict[str, Any]:
    """Rate sessions of ``config.corpus`` and their changed copies, write ``folder/audit.json`` and ``audit.html``,
    and return what is in the first.

    Paid ratings and the writer's answers are journalled in ``folder``: an interrupted audit continues. Raises UserError
    if the corpus cannot be read, if it would have to be sent away without leave, if a domain that is to match is not
    there, or if no original can be rated.
    """
    judge = _judge(_check(config, settings), settings, console)
    rubric = judge.rubric
    matching = matching_of(rubric, settings.match)
    records_read = read_records(config, console)
    if unread := sum(bool(why_unratable(session.turns)) for session in records_read):
        say(console, f"note: {unread} of {len(records_read)} sessions cannot be rated and are not used")
    originals = pick(records_read, settings.sessions, settings.seed)
    audited = Audited(originals, (), rubric, matching, settings.kinds)
    rated = asyncio.run(_rate(audited, judge, settings.writer, open_run(config, folder, console)))
    if not any(rubric.keying.total(score.domains) is not None for score in [*rated.asked.first, *rated.asked.again]):
        why = ", ".join(sorted({score.status for score in rated.asked.first})) or "there is none"
        hint = "Take transcripts of whole sessions, or another rater."
        raise UserError(f"no session could be rated ({why})", where=config.corpus.path, hint=hint)
    content = _content(rated, config, settings)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / AUDIT, text + "\n")
    names = {domain.id: domain.name for domain in rubric.domains}
    write_atomic(folder / AUDIT_PAGE, render_judge_audit(ReportAudit.model_validate(content), names))
    refuse_many_failures([], rated.asked.all, rated.run)
    return content


def _check(config: StudyConfig, settings: AuditSettings) -> Jury:
    """Return the judges. Raises UserError if an API cannot be asked, or transcripts would have to be sent to it without
    leave."""
    jury = check_rating(config, allow_upload=settings.allow_upload)
    if settings.writer is not None:
        check_reader(config, WRITER, settings.writer, allow_upload=settings.allow_upload)
    return jury


def _judge(jury: Jury, settings: AuditSettings, console: Console) -> Judge:
    """Return the judge to audit; say which others are not. Raises UserError if there is none of that name."""
    by_name = {judge.name: judge for judge in jury.judges}
    if settings.judge is not None and settings.judge not in by_name:
        raise UserError(f"no judge {settings.judge!r}", where="--judge", hint=nearest(settings.judge, by_name))
    judge = by_name[settings.judge] if settings.judge is not None else jury.first
    if others := [name for name in by_name if name != judge.name]:
        say(console, f"note: {judge.name} is audited, and not {', '.join(others)} (--judge NAME, another --out)")
    return judge


async def _rate(
    audited: Audited, judge: Judge, writer: ProviderConfig | None, opened: AbstractAsyncContextManager[RunContext]
) -> _Rated:
    """Have originals and copies rated, in this order: the originals once; again, more than once; the copies; the
    originals with the domains in the reverse order. What a judge is asked first can be told from what it is asked
    later."""
    originals, rubric, kinds = audited.originals, audited.rubric, audited.kinds
    repeats = judge.asked.repeats if judge.asked else 1
    async with opened as run:
        written = Written(materials(originals, rubric))
        if writer is not None:
            run.say(f"writer model {writer.model} at {writer.base_url}")
            written = await with_writer(written.materials, await run.providers.open(writer, WRITER), run.journal)
        audited = replace(audited, copies=copies(originals, written.materials, kinds))
        first = await _scores(originals, judge, run, 1)
        quiet = replace(run, console=Console(quiet=True))
        ratings = len(originals) * max(2, repeats) + len(audited.copies) * repeats
        run.say(f"changed copies: {len(audited.copies):,}; about {ratings + len(originals) * repeats:,} ratings in all")
        again = await _scores(originals, judge, quiet, max(2, repeats))
        copied = await _scores([copy.session for copy in audited.copies], judge, quiet, repeats)
        turned: list[Score] = []
        if "order" in kinds and not why_no_order(judge):
            turned = await _scores(originals, replace(judge, rubric=turned_round(rubric)), quiet, repeats)
        later = [score for score in again if score.repeat > 0] or again
        asked = Asked(first=first, again=later, turned=turned, copied=copied)
        if missing := sum(score.status not in ("ok", "unratable") for score in asked.all):
            run.say(f"note: {missing} of {len(asked.all)} ratings are missing; {AGAIN}")
        return _Rated(audited, written, asked, judge, costs(run.providers), run)


async def _scores(sessions: Sequence[SimulatedSession], judge: Judge, run: RunContext, repeats: int) -> list[Score]:
    """Return ``repeats`` ratings of each session by an LLM judge, one by another rater; those in the journal are not
    asked for again."""
    if not sessions:
        return []
    asked = judge.asked.model_copy(update={"repeats": repeats}) if judge.asked else None
    found = await score_sessions(sessions, Jury([replace(judge, asked=asked)]), run)
    return found[judge.instrument]


def why_no_order(judge: Judge) -> str:
    """Return why the order of domains cannot matter; an empty text if it can."""
    if len(judge.rubric.domains) < 2:
        return "the rubric has one domain"
    return "one domain is asked for in a call" if judge.asked and judge.asked.per_domain else ""


def _untested(judge: Judge, settings: AuditSettings) -> dict[str, str]:
    """Return why kinds of tests were left out."""
    left = dict.fromkeys((kind for kind in KINDS if kind not in settings.kinds), "left out (--only)")
    if why := why_no_order(judge):
        left.setdefault("order", why)
    if settings.writer is None:
        left.setdefault("wording", "needs a writer model (--writer)")
    return left


def _content(rated: _Rated, config: StudyConfig, settings: AuditSettings) -> dict[str, Any]:
    """Return what ``audit.json`` holds."""
    audited, rubric, asked = rated.audited, rated.audited.rubric, rated.asked
    entries = audit(audited, asked)
    ratings = [*asked.first, *asked.again]
    known = {score.session_id for score in ratings if rubric.keying.total(score.domains) is not None}
    return {
        "schema": SCHEMA,
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "rater": {"judge": rated.judge.name, "kind": rated.judge.kind, "label": rated.judge.label},
        "rubric": {"name": rubric.name, "minimum": rubric.minimum, "maximum": rubric.maximum, "digest": rubric.digest},
        "corpus": config.corpus.path,
        "seed": settings.seed,
        "sessions": len(audited.originals),
        "patients": len({session.patient for session in audited.originals}),
        "unrated_originals": sum(session.id not in known for session in audited.originals),
        "interval": "95 % t, over patients",
        "matching": {aspect: list(domains) for aspect, domains in audited.matching.items()},
        "writer": settings.writer.model if settings.writer else None,
        "writer_refused": dict(rated.written.refused),
        "tests": summary(entries, _untested(rated.judge, settings)),
        "probes": entries,
        "costs": rated.spent,
    }
