"""The protocol of an evaluation: how sessions are simulated, who rates them and how, which differences are computed.

It is journalled before the first session. What was changed afterwards is a deviation that the report names; sessions
that were begun under other settings are not continued; runs whose protocols differ are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.eval.analysis.contrasts import METHOD, plan_contrasts
from cbtrain.eval.analysis.ratings import ratings_of
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.settings import MISSING, differences
from cbtrain.study.evaluation.run_context import PLAN
from cbtrain.study.evaluation.score import uses_llm_judge
from cbtrain.study.trained_run import weights_digest
from cbtrain.tokens.chat_files import saved_format, saved_prompt
from cbtrain.transcripts.profile import Profile

SAYS_NOTHING = {"judging", "sessions_in_flight", "perplexity_tokens", "patient_provider", "max_failures"}
"""Settings of an evaluation that do not decide what is said in a session; of the API, its identity does."""


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
class EvaluationProtocol:
    """The protocol of the evaluation in ``folder``: from it come the two things that later processes are held to,
    ``resume_key`` and ``compare_key``, each made once, since they hash all weights. ``patients`` are the profiles of
    those who are simulated."""

    config: StudyConfig
    folder: Path
    patients: Mapping[str, Profile | None]
    rubric: Rubric
    arms: Sequence[str]

    @cached_property
    def therapist_system(self) -> str:
        """The system prompt of both therapists, base and tuned, "" for none: that of the settings, or with
        ``tokens.system=data`` the one with which the adapter is served."""
        tokens = self.config.tokens
        if tokens.system == "data":
            saved = saved_prompt(self.folder / "therapist")
            return (saved.text if saved else None) or ""
        return tokens.therapist_system if tokens.system == "ours" else ""

    @cached_property
    def resume_key(self) -> dict[str, Any]:
        """Everything that decides what is said in a session, the therapists included: a begun evaluation continues
        under the same only."""
        config, api = self.config, self.config.evaluation.patient_provider
        settings = as_always(config.evaluation.model_dump(mode="json", exclude=SAYS_NOTHING))
        layout = saved_format(self.folder / "therapist")
        profiles = [profile.model_dump_json() if profile else name for name, profile in self.patients.items()]
        return {
            "evaluation": settings | {"patient_provider": api.identity() if api else None},
            "seed": config.seed,
            "tokens.therapist_system": self.therapist_system,
            **{f"model.{key}": getattr(config.model, key) for key in ("weights", "double_quantization", "compute")},
            "the adapter": weights_digest(self.folder / "therapist"),
            **({"the chat format": layout.template} if layout else {}),
            "the patients' profiles": blake2b("\n".join(profiles).encode(), digest_size=8).hexdigest(),
        }

    @cached_property
    def compare_key(self) -> dict[str, Any]:
        """Return the settings that compared runs must share, and that the report shows. The therapists themselves (base
        model, adapter, training) are what is compared, and are not part of it."""
        config, settings = self.config, self.config.evaluation
        api = settings.patient_provider
        contrasts = plan_contrasts(ratings_of([], [], self.arms, None).arms)
        profiles = [profile.model_dump(mode="json") if profile else None for profile in self.patients.values()]
        patient_weights = "" if api else weights_digest(self.folder / "patient")
        return {
            "seed": config.seed,
            "sessions": {key: getattr(settings, key) for key in ("seeds", "max_turns", "max_words")},
            "patients": list(self.patients),
            "profiles": digest(profiles),
            "patient": {
                "played by": api.identity() if api else f"an adapter with weights {patient_weights}",
                "instructions": settings.patient_instructions if api else None,
                "sampling": as_always(settings.patient.model_dump(mode="json")),
            },
            "therapist": {
                "system prompt": self.therapist_system,
                "sampling": as_always(settings.therapist.model_dump(mode="json")),
            },
            "rubric": {"name": self.rubric.name, "digest": digest(self.rubric.model_dump(mode="json"))},
            "judge": self._judge(),
            "contrasts": [contrast.id for contrast in contrasts],
            "method": METHOD,
        }

    def _judge(self) -> dict[str, Any]:
        """Return the rater and how it is asked."""
        judging = self.config.evaluation.judging
        if not uses_llm_judge(judging, self.config.providers):
            return {"kind": "cue"}
        return {"kind": "llm", "api": judging.provider.identity(), **judging.judge.model_dump(mode="json")}


def shown(value: Any) -> str:
    """Return a value of a protocol, short enough for a line; ``nothing`` if it is missing."""
    text = "nothing" if value is MISSING else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def deviations(protocol: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what has been changed since the plan was journalled, by ``events`` of the run."""
    planned = next((event for event in events if event["kind"] == PLAN), None)
    if planned is None:
        return ["no plan was journalled before these sessions were held (an older version of cbtrain)"]
    return [
        f"{key} was {shown(before)} in the plan of {planned['time'][:16].replace('T', ' ')} UTC, and is {shown(now)}"
        for key, before, now in differences(as_always(planned["protocol"]), protocol)
    ]


def digest(value: Any) -> str:
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
