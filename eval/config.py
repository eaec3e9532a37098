"""Settings of an evaluation (torch-free)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cbtrain.eval.rating.config import JudgingConfig, NamedJudge, judges_by_name, over
from cbtrain.eval.simulation.config import (
    TOKENS_PROMPT,
    CourseConfig,
    LocalModelConfig,
    SimulatorConfig,
    TherapistConfig,
    refuse_unsent,
)
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.patients.config import PatientsConfig
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.overrides import merge
from cbtrain.settings import SettingsConflict

PATIENT_INSTRUCTIONS = (
    "You play a patient in a simulated therapy session, for research. Stay in character, speak in the first person "
    "and in plain spoken language, one to four sentences a turn, with no stage directions. Do not give advice, do not "
    "speak for the therapist, and do not get better faster than such a person would. When the session has come to its "
    "natural end, write [END] alone on a line."
)


THERAPIST, PATIENT = SamplingConfig(max_tokens=120), SamplingConfig(max_tokens=80)


PAPER: dict[str, Any] = {
    "prompt": "one-line",
    "max_turns": 50,
    "max_words": 5000,
    "end_phrases": ["take care", "don't hesitate to reach out", "main topics discussed"],
    "therapist": {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05, "max_tokens": 600},
    "patient": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 300},
    "patient_messages": 10,
    "patient_instructions": (
        "You play a patient in a simulated therapy session, for research. Stay in character and speak in the first "
        "person. Do not speak for the therapist."
    ),
    "course": {"sessions": "whole", "told": "opening", "summary": {"min_words": 80, "attempts": 10}},
    "drift": "ignore",
    "judging": {"judge": {"temperature": 0.1, "max_tokens": 8192}},
}
"""How the 2024 study held its sessions (arXiv 2412.00251 and its public simulations), in words of our own: sampling as
it was applied, not as it was meant; the end phrases that ended its sessions most often."""


class EvaluationConfig(BaseModel):
    """Simulated sessions of held-out patients with each arm, and their scores."""

    model_config = ConfigDict(extra="forbid")

    protocol: Literal["cbtrain", "paper"] = Field(
        "cbtrain", description="paper: prompts, endings, limits and sampling of the 2024 study, for comparison only"
    )
    therapists: dict[str, TherapistConfig] = Field(
        default_factory=dict,
        description="therapists under test by name; none: the base and the tuned therapist of a training run",
    )
    prompt: str = Field(
        TOKENS_PROMPT,
        min_length=1,
        description="system prompt of therapists that name none; tokens: that of `tokens`, as in training; none; a "
        "shipped prompt; a text file",
    )
    patients: PatientsConfig | None = Field(
        None, description="whom to treat: a library or a file of patients; null: the corpus's held-out patients"
    )
    max_patients: int | None = Field(None, ge=1, description="how many held-out patients to simulate; null: all")
    seeds: int = Field(2, ge=1, description="how often each session of a patient with an arm is held")
    course: CourseConfig = Field(default_factory=CourseConfig)
    sessions_in_flight: int = Field(16, ge=1)
    min_turns: int = Field(0, ge=0, description="turns before which the patient cannot end a session")
    max_turns: int = Field(20, ge=2, description="most turns of a session, of both speakers together")
    max_words: int = Field(5000, ge=10)
    end_phrases: list[Annotated[str, Field(min_length=1)]] = Field(
        [],
        description="words of a therapist, in any case, that end a session; in 2024 they cut untuned sessions short",
    )
    therapist: Annotated[SamplingConfig, over(THERAPIST)] = THERAPIST
    engine: EngineConfig = Field(default_factory=EngineConfig)
    deterministic: bool = Field(
        False,
        description="same logits whatever else is in a batch, to the last bit: some 1.15 times as slow on a CPU",
    )
    patient: Annotated[SamplingConfig, over(PATIENT)] = PATIENT
    patient_provider: ProviderConfig | None = Field(
        None, description="API that plays the patients; null: the patient adapter, on this machine"
    )
    patient_model: LocalModelConfig | None = Field(
        None, description="model on this machine that plays the patients; null: the patient adapter of a training run"
    )
    patient_instructions: str = Field(
        PATIENT_INSTRUCTIONS, description="instructions to a patient behind an API; a patient adapter gets none"
    )
    patient_messages: int | None = Field(
        None, ge=1, description="turns that the patient's model sees, the last ones; null: all"
    )
    simulators: dict[str, SimulatorConfig] = Field(
        default_factory=dict, description="ways of playing the patients by name, crossed with each other; none: one way"
    )
    drift: Literal["retry", "flag", "ignore"] = Field(
        "retry",
        description="a turn in which the patient falls out of its part: retry asks once again and flags what is left; "
        "flag only marks it; ignore does not look",
    )
    questionnaire: str | None = Field(
        None,
        min_length=1,
        description="what patients are asked after each session: after-session, or a YAML file; null: nothing",
    )
    judging: JudgingConfig = Field(default_factory=JudgingConfig)
    judges: dict[str, NamedJudge] = Field(
        default_factory=dict, description="several raters by name; none: the one that `judging` describes"
    )
    allocation: Literal["full", "cyclic"] = Field(
        "full", description="full: every judge rates all sessions; cyclic: the judges of an instrument take turns"
    )
    max_failures: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the sessions, or of the ratings, that may fail; above it, the run ends with status 2",
    )
    perplexity_tokens: int = Field(10_000, ge=1, description="tokens of each held-out patient's sessions to measure")

    @model_validator(mode="before")
    @classmethod
    def _of_its_protocol(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("judges"), list):
            values = {**values, "judges": judges_by_name(values["judges"])}
        paper = isinstance(values, dict) and values.get("protocol") == "paper"
        return merge(PAPER, values) if paper else values

    @model_validator(mode="after")
    def _patient_can_be_asked(self) -> EvaluationConfig:
        """Raise SettingsConflict on two models of the patient, on a setting that requests to its API would leave out,
        and on limits that contradict each other."""
        if self.min_turns > self.max_turns:
            problem = f"min_turns is {self.min_turns}, more than max_turns ({self.max_turns})"
            raise SettingsConflict(problem, "min_turns", "max_turns")
        if self.patient_provider is None:
            return self
        if self.patient_model is not None:
            problem = "patient_provider and patient_model are both given; leave one out"
            raise SettingsConflict(problem, "patient_provider", "patient_model")
        refuse_unsent(self.patient, "patient", "a patient behind an API")
        return self
