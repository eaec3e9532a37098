"""The therapists of an evaluation: those that its settings name, or base and tuned adapter of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.eval.analysis.arms import UNTUNED, Arm, arms_of, check_references, with_declared
from cbtrain.eval.rating.csv_table import check_name
from cbtrain.eval.rating.families import family_of
from cbtrain.eval.simulation.api_speakers import api_request
from cbtrain.eval.simulation.config import (
    LONGEST_NAME,
    NO_PROMPT,
    PROMPT_WORDS,
    STUDY_PROMPT,
    TOKENS_PROMPT,
    TRAINED_PROMPT,
    LocalModelConfig,
    TherapistConfig,
    refuse_unsent,
)
from cbtrain.eval.simulation.prompts import prompt_text
from cbtrain.files import text_digest
from cbtrain.generation.config import SamplingConfig
from cbtrain.model.weights.hub import resolve_model
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.providers import api_format_of
from cbtrain.providers.types import Message
from cbtrain.settings import SettingsConflict
from cbtrain.study.evaluation.local_weights import LocalWeights, layout_digest, local_weights
from cbtrain.study.evaluation.problems import Problems
from cbtrain.study.trained_run import TrainedRun
from cbtrain.tokens.chat_files import saved_format, saved_prompt

BASE, TUNED = "base", "tuned"
"""The arms of a training run."""

PATIENT = "patient"
"""The folder of a run's patient, and its name in an engine."""

NOT_SAMPLING = ("messages", "contents", "system", "systemInstruction", "system_instruction")
"""Fields of a request's body that hold the words."""


@dataclass(frozen=True)
class Therapist:
    """An arm of the study, with all that decides what it says. ``system``: its system prompt, "" for none; ``prompt``:
    what that is called. ``weights`` are None for a therapist behind an API (``provider``)."""

    arm: Arm
    system: str
    prompt: str
    sampling: SamplingConfig
    weights: LocalWeights | None = None
    provider: ProviderConfig | None = None
    layout: str = ""
    """The digest of the chat format."""

    @property
    def name(self) -> str:
        return self.arm.name

    @property
    def applied_sampling(self) -> dict[str, Any]:
        """Return sampling as the engine applies it, or as the API is asked for it."""
        if self.provider is None:
            return self.sampling.model_dump(mode="json")
        request = api_request([Message("user", "…")], self.sampling, seed=0)
        body = api_format_of(self.provider).request(request).body
        return {key: value for key, value in body.items() if key not in (*NOT_SAMPLING, "model", "seed")}

    @property
    def family(self) -> str:
        """The family of its model; empty if it is not known."""
        if self.provider is not None:
            return family_of(self.provider.model)
        return self.weights.family if self.weights else ""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return all that decides what this therapist says, but the settings of the engine that it shares."""
        said = {"system prompt": self.system, "sampling": self.applied_sampling}
        if self.provider is not None:
            return {"api": self.provider.identity(), **said}
        assert self.weights is not None
        return {**self.weights.digests, "chat format": self.layout, **said}

    @cached_property
    def described(self) -> dict[str, Any]:
        """Return :attr:`identity` for people: what the plan says of this arm."""
        where: dict[str, Any] = {}
        if self.weights is not None:
            where = {"model": str(self.weights.model)}
            where |= {"adapter folder": str(self.weights.adapter)} if self.weights.adapter else {}
        reference = True if self.arm.is_reference else self.arm.reference or False
        arm = {"base": self.arm.base, "variant": self.arm.variant, "reference": reference}
        return {**arm, "prompt": self.prompt, **where, **self.identity}


def therapists_of(config: StudyConfig, trained: TrainedRun | None, problems: Problems) -> list[Therapist]:
    """Return the therapists that ``config`` names; if it names none, base and tuned therapist of the ``trained`` run.
    What is wrong with any of them goes to ``problems``, and it is left out."""
    settings = config.evaluation.therapists
    if not settings:
        assert trained is not None
        return _of_run(config, trained)
    _check_names(settings, problems)
    therapists = []
    for name, therapist in settings.items():
        with problems.collected(key_of(name)):
            therapists.append(_named(name, therapist, config))
    arms = _declared(settings)
    therapists = [replace(therapist, arm=arms[therapist.name]) for therapist in therapists]
    return _with_voices(therapists, config, problems)


def key_of(name: str) -> str:
    """Return the setting that describes the therapist ``name``."""
    return f"evaluation.therapists.{name}"


def _check_names(settings: Mapping[str, TherapistConfig], problems: Problems) -> None:
    for name in settings:
        with problems.collected(key_of(name)):
            require_name(name, "a therapist")
    with problems.collected():
        check_references(_declared(settings), "evaluation.therapists", "the study")


def require_name(name: str, of: str) -> None:
    """Raise UserError if ``name`` cannot be a part of a session's id and a cell of a table. ``of``: whose it is."""
    try:
        check_name(name, f"the name of {of}")
    except ValueError as error:
        raise UserError(str(error), hint="Give it another name.") from None
    if name != name.strip() or "/" in name or len(name) > LONGEST_NAME:
        hint = f"Take at most {LONGEST_NAME} characters, no slash, and no space at an end."
        raise UserError("this name cannot be used", hint=hint)


def _declared(settings: Mapping[str, TherapistConfig]) -> dict[str, Arm]:
    """Return the arms, with the base and variant that the settings give, else those that their names give."""
    return {
        name: with_declared(arm, settings[name].base.strip(), settings[name].variant.strip(), settings[name].reference)
        for name, arm in arms_of(settings).items()
    }


def _named(name: str, settings: TherapistConfig, config: StudyConfig) -> Therapist:
    """Return the therapist that ``settings`` describe, without its layout. Raises UserError."""
    settings.check()
    sampling = settings.sampling or config.evaluation.therapist
    arm = Arm(name, settings.base, settings.variant)
    if settings.provider is not None:
        try:
            refuse_unsent(sampling, "sampling", "a therapist behind an API")
        except SettingsConflict as conflict:
            hint = "Give this therapist sampling of its own." if settings.sampling is None else None
            raise UserError(str(conflict), hint=hint) from None
        system = _system(settings.prompt, None, config)
        return Therapist(arm, system, settings.prompt, sampling, provider=settings.provider)
    assert settings.model is not None
    weights = local_weights(LocalModelConfig(model=settings.model, adapter=settings.adapter))
    system = _system(settings.prompt, weights.adapter or weights.model, config)
    return Therapist(arm, system, settings.prompt, sampling, weights=weights)


def _system(word: str, folder: Path | None, config: StudyConfig) -> str:
    """Return the system prompt that ``word`` names; ``folder`` is where one may be saved. Raises UserError."""
    if word == NO_PROMPT:
        return ""
    if word == STUDY_PROMPT and config.evaluation.prompt != STUDY_PROMPT:
        return _system(config.evaluation.prompt, folder, config)
    if word in (TOKENS_PROMPT, STUDY_PROMPT):
        # With `data`, training gives each session its own; sessions that have none get this one.
        return "" if config.tokens.system == "none" else config.tokens.therapist_system
    if word != TRAINED_PROMPT:
        return prompt_text(word, PROMPT_WORDS)
    saved = saved_prompt(folder) if folder is not None else None
    if saved is None or saved.text is None:
        why = f" ({saved.note})" if saved and saved.note else ""
        raise UserError(f"no system prompt is saved with it{why}", where=folder, hint="Name another prompt.")
    return saved.text


def _with_voices(therapists: list[Therapist], config: StudyConfig, problems: Problems) -> list[Therapist]:
    """Return ``therapists`` with their chat formats. A base that has none is talked to as its first adapter is."""
    adapters: dict[Path, Path] = {}
    for therapist in therapists:
        if therapist.weights and therapist.weights.adapter:
            adapters.setdefault(therapist.weights.model, therapist.weights.adapter)
    voiced = []
    for therapist in therapists:
        weights = therapist.weights
        if weights is None:
            voiced.append(therapist)
            continue
        with problems.collected(key_of(therapist.name)):
            try:
                voice = weights.voice(config.tokens.format)
            except UserError:
                if weights.adapter or weights.model not in adapters:
                    raise
                weights = replace(weights, layout_of=adapters[weights.model])
                voice = weights.voice(config.tokens.format)
            voiced.append(replace(therapist, weights=weights, layout=layout_digest(voice)))
    return voiced


def notes_on(therapists: Sequence[Therapist]) -> list[str]:
    """Return what a reader has to know of how ``therapists`` differ: arms that are the same, trained ones without
    anything trained, and arms of one base that differ in more than their weights."""
    notes = []
    for first, second in combinations(therapists, 2):
        if first.identity == second.identity:
            notes.append(f"{first.name} and {second.name} are the same therapist: model, prompt and sampling")
        elif first.arm.base == second.arm.base and (first.weights and second.weights):
            differ = [what for what in ("system prompt", "sampling") if first.identity[what] != second.identity[what]]
            trained = first.weights.adapter != second.weights.adapter or first.weights.model != second.weights.model
            if trained and differ:
                notes.append(f"{first.name} and {second.name} differ in {' and '.join(differ)}, not by weights alone")
    untuned = {therapist.weights for therapist in therapists if therapist.arm.variant in UNTUNED}
    for therapist in therapists:
        trained = therapist.arm.variant in ("tuned", "placebo")
        if trained and therapist.weights and not therapist.weights.adapter and therapist.weights in untuned:
            notes.append(f"{therapist.name} is called {therapist.arm.variant} and has no adapter")
    return notes


def _of_run(config: StudyConfig, trained: TrainedRun) -> list[Therapist]:
    """Return base and tuned therapist of a run. Both are talked to in the layout of training, with its system prompt:
    they differ by the adapter alone."""
    model, adapter = resolve_model(trained.base), trained.folder / "therapist"
    tokens = config.tokens
    system = _system(config.evaluation.prompt, adapter, config)
    if tokens.system == "data" and config.evaluation.prompt == TOKENS_PROMPT:
        saved = saved_prompt(adapter)
        system = (saved.text if saved else None) or ""
    saved_layout = saved_format(adapter)
    layout = saved_layout.template if saved_layout else ""
    arms, sampling = arms_of([BASE, TUNED]), config.evaluation.therapist
    digest = text_digest(layout)
    return [
        Therapist(arms[name], system, STUDY_PROMPT, sampling, weights=weights, layout=digest)
        for name, weights in (
            (BASE, LocalWeights(model, layout_of=adapter)),
            (TUNED, LocalWeights(model, adapter)),
        )
    ]
