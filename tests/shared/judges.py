"""Judges as an evaluation asks them, for tests."""

from cbtrain.eval.rating.config import JudgeConfig
from cbtrain.eval.rating.judge import Asking
from cbtrain.eval.rating.judge_prompt import load_judge_prompt
from cbtrain.eval.rating.judging import Earlier, JudgeWork, judge_sessions
from cbtrain.eval.rating.rubric_files import load_rubric

RUBRIC = load_rubric()


def asking(rubric=RUBRIC, judge="judge", prompt="default", **config):
    return Asking(judge, rubric, load_judge_prompt(prompt), JudgeConfig(**config))


async def rated(provider, api, sessions, journal, display=None, **config):
    """The ratings of ``sessions`` by one judge."""
    work = JudgeWork(asking(judge=api.model, **config), api, sessions)
    (scores,) = await judge_sessions([(work, provider)], Earlier.of_journal(journal), journal, display)
    return scores
