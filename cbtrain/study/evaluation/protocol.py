"""The protocol of an evaluation: how sessions are simulated, who rates them and how, which differences are computed.

It is journalled, and written to ``plan.yaml``, before the first session. What was changed afterwards is a deviation
that the report names; sessions that were begun under other settings are not continued; runs whose protocols differ in
more than the therapists are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import Plan, plan_contrasts
from cbtrain.eval.analysis.contrasts import METHOD
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.generation.config import SamplingConfig
from cbtrain.providers.config import ProviderConfig
from cbtrain.settings import MISSING, differences
from cbtrain.study.evaluation.local_weights import LocalWeights, text_digest
from cbtrain.study.evaluation.run_context import PLAN
from cbtrain.study.evaluation.score import uses_llm_judge
from cbtrain.study.evaluation.therapists import Therapist, notes_on
from cbtrain.transcripts.profile import Profile

THERAPISTS = "therapists"
"""The part of a plan that says who the therapists are: compared runs may differ in it."""

OF_ONE_RUN = ("families", "outcomes", "notes")
"""Parts of a plan that follow from others."""

PLACES = (".model", ".adapter folder")
"""Ends of keys that say where files lie: what they hold has a digest of its own."""

SIZES = {"slots", "memory_gb", "prefill_tokens"}
"""Settings of the engine that change no word."""

ADDED_LATER: Mapping[str, Any] = {
    "deterministic": False,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_tokens": 0,
}
"""Settings that journals and reports of older versions do not have, and their values then: they are left out where they
have these, so that older runs are continued and compared."""


def as_always(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` without those of :data:`ADDED_LATER` that change nothing, and without :data:`SIZES`."""
    return {
        key: as_always(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in SIZES and (key not in ADDED_LATER or value != ADDED_LATER[key])
    }


@dataclass(frozen=True)
class PatientPlayer:
    """Who plays the patients: ``provider``, or else ``weights`` on this machine. ``instructions`` are for a general
    model; None for an adapter that was trained to be a patient. It sees the ``last`` turns (None: all)."""

    sampling: SamplingConfig
    instructions: str | None
    last: int | None = None
    provider: ProviderConfig | None = None
    weights: LocalWeights | None = None
    layout: str = ""

    @cached_property
    def name(self) -> Any:
        """Return what identifies the model."""
        if self.provider is not None:
            return self.provider.identity()
        assert self.weights is not None
        if self.weights.adapter is not None:
            return f"an adapter with weights {self.weights.digests['adapter']}"
        return f"a model with weights {self.weights.digests['weights']}"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return all that decides what a patient says, but the profile."""
        sampling = as_always(self.sampling.model_dump(mode="json"))
        identity = {"played by": self.name, "instructions": self.instructions, "sampling": sampling}
        return identity | ({} if self.last is None else {"last turns seen": self.last})

    @cached_property
    def in_session(self) -> dict[str, Any]:
        """Return :attr:`identity` with all that decides what a model on this machine says, and without the address of
        an API that nobody is paid for: the same server may have moved."""
        if self.weights is None:
            assert self.provider is not None
            return {**self.identity, "played by": _wherever(self.provider)}
        return {**self.identity, "model": self.weights.digests, "chat format": self.layout}


def _wherever(provider: ProviderConfig) -> dict[str, Any]:
    """Return the identity of an API, without its address if nobody is paid for it."""
    identity = provider.identity()
    return identity if provider.paid else {key: value for key, value in identity.items() if key != "base_url"}


@dataclass(frozen=True)
class EvaluationProtocol:
    """Who is treated by whom, and how sessions are held and rated. ``patients`` are the profiles of those who are
    simulated."""

    config: StudyConfig
    patients: Mapping[str, Profile | None]
    rubric: Rubric
    therapists: Sequence[Therapist]
    player: PatientPlayer

    @cached_property
    def arms(self) -> dict[str, Arm]:
        return {therapist.name: therapist.arm for therapist in self.therapists}

    @cached_property
    def _contrasts(self) -> list[Plan]:
        return plan_contrasts(self.arms)

    def session_settings(self, therapist: Therapist, patient: str) -> dict[str, Any]:
        """Return everything that decides what is said in a session of ``patient`` with ``therapist``: a begun session
        continues under the same only."""
        settings, profile = self.config.evaluation, self.patients[patient]
        shown_profile = profile.model_dump(mode="json") if profile else patient
        speaker = dict(therapist.identity)
        if therapist.provider is not None:
            speaker["api"] = _wherever(therapist.provider)
        said = {
            "therapist": as_always(speaker),
            "patient": self.player.in_session | {"profile": digest(shown_profile)},
            "limits": self._limits,
            "seed": self.config.seed,
        }
        if therapist.weights is None and self.player.weights is None:
            return said
        model = self.config.model
        formats = {key: getattr(model, key) for key in ("weights", "double_quantization", "compute")}
        engine = {"context_tokens": settings.engine.context_tokens, "deterministic": settings.deterministic}
        return said | {"on this machine": formats | as_always(engine)}

    @property
    def _limits(self) -> dict[str, Any]:
        settings = self.config.evaluation
        limits: dict[str, Any] = {"max_turns": settings.max_turns, "max_words": settings.max_words}
        return limits | ({"end_phrases": settings.end_phrases} if settings.end_phrases else {})

    @cached_property
    def compare_key(self) -> dict[str, Any]:
        """Return the settings that compared runs must share, and that the report shows. The therapists themselves (base
        model, adapter, training) are what is compared, and are not part of it."""
        config, settings = self.config, self.config.evaluation
        profiles = [profile.model_dump(mode="json") if profile else None for profile in self.patients.values()]
        return {
            "seed": config.seed,
            "sessions": {"seeds": settings.seeds, **self._limits},
            "patients": list(self.patients),
            "profiles": digest(profiles),
            "patient": self.player.identity,
            "therapist": {
                "system prompt": _shared({arm.name: arm.system for arm in self.therapists}),
                "sampling": _shared({arm.name: as_always(arm.applied_sampling) for arm in self.therapists}),
            },
            "rubric": {"name": self.rubric.name, "digest": digest(self.rubric.model_dump(mode="json"))},
            "judge": self._judge(),
            "contrasts": [contrast.id for contrast in self._contrasts],
            "method": METHOD,
        }

    @cached_property
    def plan(self) -> dict[str, Any]:
        """Return what is settled before the first session: :attr:`compare_key`, what is measured, and who the
        therapists are."""
        families: dict[str, dict[str, list[str]]] = {}
        for contrast in self._contrasts:
            pairs = [f"{first} − {second}" for first, second in contrast.pairs]
            families.setdefault(contrast.family, {})[contrast.id] = pairs
        outcomes = {"primary": "total", "secondary": [domain.id for domain in self.rubric.domains]}
        therapists = {arm.name: as_always(arm.described) for arm in self.therapists}
        more = {"families": families, "outcomes": outcomes, "notes": notes_on(self.therapists)}
        return {**self.compare_key, **more, THERAPISTS: therapists}

    def _judge(self) -> dict[str, Any]:
        """Return the rater and how it is asked."""
        judging = self.config.evaluation.judging
        if not uses_llm_judge(judging, self.config.providers):
            return {"kind": "cue"}
        return {"kind": "llm", "api": judging.provider.identity(), **judging.judge.model_dump(mode="json")}


def _shared(values: Mapping[str, Any]) -> Any:
    """Return the value that all arms have, or else each arm's."""
    first, *others = values.values()
    return first if all(value == first for value in others) else dict(values)


def comparable(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of ``plan`` that compared runs must share, as the plans of older versions were."""
    return {key: value for key, value in plan.items() if key not in (THERAPISTS, *OF_ONE_RUN)}


def shown(value: Any) -> str:
    """Return a value of a protocol, short enough for a line; ``nothing`` if it is missing."""
    text = "nothing" if value is MISSING else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def deviations(protocol: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what has been changed since the plan was journalled, by ``events`` of the run."""
    planned = next((event for event in events if event["kind"] == PLAN), None)
    if planned is None:
        return ["no plan was journalled before these sessions were held (an older version of cbtrain)"]
    before = as_always(planned["protocol"])
    if THERAPISTS not in before:  # as older versions wrote it
        protocol = comparable(protocol)
    return [
        f"{key} was {shown(old)} in the plan of {planned['time'][:16].replace('T', ' ')} UTC, and is {shown(now)}"
        for key, old, now in differences(before, protocol)
        if not (key.startswith(f"{THERAPISTS}.") and key.endswith(PLACES))
    ]


def digest(value: Any) -> str:
    return text_digest(json.dumps(value, sort_keys=True))
