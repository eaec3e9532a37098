"""Judges as an evaluation asks them, for tests, and what a judge has read of a request."""

import json
import re

from cbtrain.eval.rating.config import JudgeConfig
from cbtrain.eval.rating.judge import Asking
from cbtrain.eval.rating.judge_prompt import load_judge_prompt
from cbtrain.eval.rating.judging import JudgeWork, judge_sessions
from cbtrain.eval.rating.rubric_files import load_rubric

RUBRIC = load_rubric()
TRANSCRIPT = re.compile(r"^<<<transcript ([0-9a-f]+)>>>\n(.*)\n<<<end of transcript \1>>>$", re.DOTALL | re.MULTILINE)


def asking(rubric=RUBRIC, judge="judge", prompt="default", **config):
    return Asking(judge, rubric, load_judge_prompt(prompt), JudgeConfig(**config))


async def rated(provider, api, sessions, journal, display=None, **config):
    """The ratings of ``sessions`` by one judge."""
    work = JudgeWork(asking(judge=api.model, **config), api, sessions)
    (scores,) = await judge_sessions([(work, provider)], journal, display)
    return scores


def turns_read(body):
    """The turns that a careful reader finds in a request: role and text."""
    text = body["messages"][-1]["content"]
    (found,) = TRANSCRIPT.findall(text)
    lines = [json.loads(line) for line in found[1].split("\n")]
    assert [line["turn"] for line in lines] == [*range(1, len(lines) + 1)]
    return [(line["speaker"], line["text"]) for line in lines]
