"""What an evaluation holds to, so that it can be held to it: how sessions come about, who rates them and by what, and
which differences are to be computed.

It is journalled before the first session. What was changed afterwards is a deviation that the report names; runs whose
protocols differ are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.eval.analysis.contrasts import METHOD, plan_contrasts
from cbtrain.eval.analysis.ratings import ratings_of
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.transcripts.profile import Profile

PLAN = "plan"
"""The kind of the journal's record of a protocol."""


def study_protocol(
    config: StudyConfig,
    folder: Path,
    patients: Mapping[str, Profile | None],
    rubric: Rubric,
    judge: Mapping[str, Any],
    arms: Sequence[str],
) -> dict[str, Any]:
    """The protocol of the evaluation in ``folder``. ``judge`` says who rates. The therapists themselves (base model,
    adapter, training) are what is compared, and are not part of it."""
    settings = config.evaluation
    api = settings.patient_provider
    plans = plan_contrasts(ratings_of([], [], arms, None).arms)
    return {
        "seed": config.seed,
        "sessions": {key: getattr(settings, key) for key in ("seeds", "max_turns", "max_words")},
        "patients": list(patients),
        "profiles": digest([profile.model_dump(mode="json") if profile else None for profile in patients.values()]),
        "patient": {
            "played by": api.identity() if api else f"an adapter with weights {weights_digest(folder / 'patient')}",
            "instructions": settings.patient_instructions if api else None,
            "sampling": settings.patient.model_dump(mode="json"),
        },
        "therapist": {
            "system prompt": config.tokens.therapist_system,
            "sampling": settings.therapist.model_dump(mode="json"),
        },
        "rubric": {"name": rubric.name, "digest": digest(rubric.model_dump(mode="json"))},
        "judge": dict(judge),
        "contrasts": [plan.id for plan in plans],
        "method": METHOD,
    }


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys on which two protocols differ, those inside others with dots."""
    found = []
    for key in {**one, **other}:
        inner, before = one.get(key, ...), other.get(key, ...)
        if isinstance(inner, dict) and isinstance(before, dict):
            found += [f"{key}.{name}" for name in differing(inner, before)]
        elif inner != before:
            found.append(key)
    return found


def value_at(protocol: Mapping[str, Any], key: str) -> str:
    """What stands at a key of :func:`differing`, short enough for a line."""
    found: Any = protocol
    for name in key.split("."):
        found = found.get(name, "nothing") if isinstance(found, Mapping) else "nothing"
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def deviations(protocol: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[str]:
    """What has been changed since the plan was journalled, by ``events`` of the run."""
    planned = next((event for event in events if event["kind"] == PLAN), None)
    if planned is None:
        return ["no plan was journalled before these sessions were held (an older version of cbtrain)"]
    before = planned["protocol"]
    return [
        f"{key} was {value_at(before, key)} in the plan of {planned['time'][:16].replace('T', ' ')} UTC, "
        f"and is {value_at(protocol, key)}"
        for key in differing(before, protocol)
    ]


def digest(value: Any) -> str:
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def weights_digest(folder: Path) -> str:
    """Of all weights in ``folder``, by their bytes."""
    weights = blake2b(digest_size=8)
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as handle:
            while block := handle.read(1 << 24):
                weights.update(block)
    return weights.hexdigest()
