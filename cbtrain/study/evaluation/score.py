"""Score simulated or given sessions: with the LLM judge if its key is set, else with the cue rater."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from rich.progress import track

from cbtrain.errors import UserError
from cbtrain.eval.rating.config import JudgingConfig
from cbtrain.eval.rating.cue_rater import CUE_RATER, CUE_RATER_LABEL, FEW_WORDS, rate
from cbtrain.eval.rating.judging import judge_sessions
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.providers.config import ProvidersConfig
from cbtrain.providers.providers import recorded
from cbtrain.study.evaluation.failures import refuse_if_none_ratable, refuse_if_none_rated
from cbtrain.study.evaluation.run_context import RunContext

MOST_REASONS = 5
"""Reasons for which sessions cannot be rated that are told one by one."""


def uses_llm_judge(judging: JudgingConfig, providers: ProvidersConfig) -> bool:
    """Return whether an LLM judge rates; ``auto`` looks for its key or, where a recording answers, for its ratings in
    that. Raises UserError if it is demanded without a key."""
    key = judging.provider.api_key_env
    if providers.replay:
        return judging.rater == "llm" or (judging.rater == "auto" and recorded(providers, judging.provider))
    has_key = key is None or bool(os.environ.get(key))
    if judging.rater == "llm" and not has_key:
        raise UserError("the LLM judge's API key is not set", where=key, hint=f"export {key}=… before the run.")
    return judging.rater == "llm" or (judging.rater == "auto" and has_key)


async def score_sessions(
    sessions: Sequence[SimulatedSession], rubric: Rubric, run: RunContext
) -> tuple[list[Score], dict[str, str]]:
    """Score every session that did not fail, with the LLM judge if its key is set, else with the cue rater. Return
    the scores and who gave them."""
    # Of sessions that an evaluation has planned; others have no key.
    held = [session for session in sessions if session.ending is not None or session.turns or not session.key]
    ratable = [session for session in held if not session.failed]
    if failures := len(held) - len(ratable):
        run.say(f"{counted(failures, 'session')} failed and cannot be rated")
    if missing := len(sessions) - len(held):
        run.say(f"{counted(missing, 'session')} did not begin, since too many failed or their course had ended")
    if uses_llm_judge(run.config.evaluation.judging, run.config.providers):
        scores, rater = await _judged(ratable, rubric, run)
        _tell_unratable(scores, run)
        return scores, rater
    run.say(CUE_RATER_LABEL)
    shown = track(ratable, "score", console=run.console, disable=not run.console.is_terminal)
    scores = []
    for session in shown:
        run.stop.refuse_new()
        scores.append(rate(session, rubric))
    _tell_unratable(scores, run)
    refuse_if_none_ratable(scores, run, but=FEW_WORDS)  # a model that says nothing in words is a result
    return scores, {"judge": CUE_RATER, "kind": "cue", "label": CUE_RATER_LABEL}


def _tell_unratable(scores: Sequence[Score], run: RunContext) -> None:
    """Say how many sessions could not be rated, and why."""
    why = {score.session_id: score.reason.get("error", "") for score in scores if score.status == "unratable"}
    for reason, count in Counter(filter(None, why.values())).most_common(MOST_REASONS):
        run.say(f"note: {counted(count, 'session')} cannot be rated: {reason}")


async def _judged(
    sessions: Sequence[SimulatedSession], rubric: Rubric, run: RunContext
) -> tuple[list[Score], dict[str, str]]:
    judging = run.config.evaluation.judging
    label = f"LLM judge {judging.provider.model}"
    run.say(f"{label} at {judging.provider.base_url}")
    judge = await run.providers.open(judging.provider, "judge")
    scores = await judge_sessions(judge, rubric, sessions, judging, run.journal, run.display)
    if judge.thoughts:
        run.say(f"note: thinking was taken out of {judge.thoughts:,} of the judge's {counted(judge.answers, 'answer')}")
    refuse_if_none_rated(scores, run)
    return scores, {"judge": judging.provider.model, "kind": "llm", "label": label}
