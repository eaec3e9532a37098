"""Failed sessions and missing ratings: how many a run may have, and what is said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cbtrain.errors import UserError
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.evaluation.run_context import RunContext

AGAIN = "repeat the command to ask for what failed again"


def refuse_if_all_failed(sessions: Sequence[SimulatedSession], run: RunContext) -> None:
    """Raise UserError if no session was held to an end that says something of a therapist: there is nothing to
    rate."""
    if sessions and all(session.failed for session in sessions):
        hint = "Nothing is lost: fix this and run `cbtrain evaluate` on the same run folder."
        raise UserError(f"every session failed: {_cause(sessions)}", where=_where(sessions, run), hint=hint)


def refuse_many_failures(sessions: Sequence[SimulatedSession], scores: Sequence[Score], run: RunContext) -> None:
    """Raise UserError, which begins with the cause, where a larger share of sessions, or of the ratings of the others,
    failed than ``evaluation.max_failures`` allows. Sessions that did not begin, since their course had ended or too
    many of their arm had failed, count with those that failed. Call it when all that there is has been written."""
    limit = run.config.evaluation.max_failures
    hint = f"The results are written, without them: fix this and {AGAIN}, or set evaluation.max_failures."
    failed = [session for session in sessions if session.failed]
    missed = [session for session in sessions if session.key and session.ending is None]  # planned, and not begun
    if len(failed) + len(missed) > limit * len(sessions):
        more = f", {len(missed)} more did not begin" if missed else ""
        problem = f"{_cause(failed or _broken(sessions))} ({len(failed)} of {len(sessions)} sessions failed{more})"
        raise UserError(problem, where=_where(failed, run) if failed else run.journal.path, hint=hint)
    missing = _missing_ratings(scores)
    if len(missing) > limit * len(scores):
        problem = f"{_cause_of(missing)} ({len(missing)} of {len(scores)} ratings are missing)"
        raise UserError(problem, where=_where_of(missing, run), hint=hint)


def refuse_if_none_rated(scores: Sequence[Score], run: RunContext) -> None:
    """Raise UserError if every rating failed: there is nothing to report. Otherwise say how many are missing."""
    missing = _missing_ratings(scores)
    if missing and all(score.status == "error" for score in scores):
        hint = "Nothing is lost: fix this and run the same command again."
        raise UserError(f"no session could be rated: {_cause_of(missing)}", where=_where_of(missing, run), hint=hint)
    if missing:
        run.say(
            f"note: {len(missing)} of {len(scores)} ratings are missing ({_where_of(missing, run)}: "
            f"{_cause_of(missing)}); fix this and run the same command again to get them"
        )


def refuse_if_none_ratable(scores: Sequence[Score], run: RunContext, but: str = "") -> None:
    """Raise UserError if there are scores and every session is unratable for a reason that was known beforehand;
    ``but`` is a reason that is let pass."""
    why = [score.reason.get("error", "") if score.status == "unratable" else "" for score in scores]
    if not scores or not all(why) or but in why:
        return
    hint = "An LLM judge (evaluation.judging.rater=llm) or people (`cbtrain rate export`) can rate any language."
    problem = f"none of {counted(len(scores), 'session')} can be rated: {_most_common(why)}"
    raise UserError(problem, where=run.folder, hint=hint)


def _missing_ratings(scores: Sequence[Score]) -> list[Score]:
    """Return the scores that another request to the judge could give."""
    return [score for score in scores if score.status not in ("ok", "unratable")]


def _cause_of(missing: Sequence[Score]) -> str:
    return _most_common([_reason_of(score) for score in missing])


def _where_of(missing: Sequence[Score], run: RunContext) -> str:
    """Return the setting or address to look at first."""
    if any(score.reason.get("error", "").startswith("budget") for score in missing):
        return "providers.budget"
    settings = run.config.evaluation
    (name, _), *_ = Counter(score.judge for score in missing).most_common()
    named = settings.judges.get(name)
    return ((named and named.provider) or settings.judging.provider).base_url


def _broken(sessions: Sequence[SimulatedSession]) -> list[SimulatedSession]:
    """Return the sessions, good ones, that no others of their course could follow."""
    return [session for session in sessions if session.error and not session.failed]


def _cause(failed: Sequence[SimulatedSession]) -> str:
    return _most_common([f"{session.ending}: {session.error or 'no reason'}" for session in failed])


def _reason_of(score: Score) -> str:
    reason = score.reason.get("error", "no reason")
    return reason if score.status == "error" else f"{score.status}: {reason}"


def _most_common(causes: Sequence[str]) -> str:
    """Return the most frequent one, and how many others there are."""
    (cause, _), *others = Counter(causes).most_common()
    return f"{cause}, and {len(others)} other causes" if others else cause


def _where(failed: Sequence[SimulatedSession], run: RunContext) -> object:
    """Return the setting, address or file to look at first."""
    endings = {session.ending for session in failed}
    settings = run.config.evaluation
    api = settings.patient_provider
    arms = {session.arm for session in failed}
    therapist = settings.therapists.get(arms.pop()) if len(arms) == 1 else None
    if therapist is not None and therapist.provider is not None:
        api = therapist.provider
    if "budget" in endings:
        return "providers.budget"
    if "internal_error" in endings:
        return run.journal.path
    return api.base_url if api else run.journal.path
