"""Settings whose paths hold wherever a run folder is read from."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from cbtrain.config.schema import StudyConfig
from cbtrain.eval.config import EvaluationConfig
from cbtrain.eval.rating.config import CUE, LLM
from cbtrain.eval.rating.judge_prompt import shipped_prompts as shipped_judge_prompts
from cbtrain.eval.rating.rubric_files import shipped_rubrics
from cbtrain.eval.simulation.config import PROMPT_WORDS
from cbtrain.eval.simulation.prompts import shipped_prompts
from cbtrain.eval.simulation.questionnaire import shipped_questionnaires
from cbtrain.eval.simulation.simulators import shipped_simulators
from cbtrain.files import exists, expanded
from cbtrain.transcripts.reading import SAMPLES
from cbtrain.transcripts.types import OWN_SIDES


def anchored(config: StudyConfig) -> StudyConfig:
    """Return ``config`` with absolute paths, so that the run folder can be evaluated from anywhere."""
    anchored = config.model_copy(deep=True)
    for part, key in _places(anchored):
        path = getattr(part, key)
        if path and exists(expanded(path)):
            setattr(part, key, str(expanded(path).resolve()))
    return anchored


def _places(config: StudyConfig) -> Iterator[tuple[BaseModel, str]]:
    """Yield the settings that may name files or folders: section and key."""
    yield config.model, "path"
    yield config.training.forgetting, "text"
    corpus, evaluation = config.corpus, config.evaluation
    yield from ((corpus, key) for key in ("path", "metadata", *OWN_SIDES) if getattr(corpus, key) not in SAMPLES)
    yield from _of_raters(evaluation)
    if evaluation.patients:
        yield evaluation.patients, "file"
    for simulator in evaluation.simulators.values():
        if simulator.method not in shipped_simulators():
            yield simulator, "method"
    if evaluation.questionnaire not in shipped_questionnaires():
        yield evaluation, "questionnaire"
    if evaluation.patient_model:
        yield from ((evaluation.patient_model, key) for key in ("model", "adapter"))
    for therapist in evaluation.therapists.values():
        yield from ((therapist, key) for key in ("model", "adapter"))
        if therapist.prompt not in (*shipped_prompts(), *PROMPT_WORDS):
            yield therapist, "prompt"


def _of_raters(evaluation: EvaluationConfig) -> Iterator[tuple[BaseModel, str]]:
    judging = evaluation.judging
    if judging.rubric not in shipped_rubrics():
        yield judging, "rubric"
    if judging.judge.prompt not in shipped_judge_prompts():
        yield judging.judge, "prompt"
    for judge in evaluation.judges.values():
        if judge.rubric not in shipped_rubrics():
            yield judge, "rubric"
        if judge.prompt not in shipped_judge_prompts():
            yield judge, "prompt"
        if judge.rater not in (CUE, LLM):
            yield judge, "rater"
