"""What an older version of cbtrain wrote down of an evaluation: one set of settings for all sessions of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cbtrain.files import text_digest
from cbtrain.study.evaluation.identity import as_always
from cbtrain.study.evaluation.protocol import EvaluationProtocol
from cbtrain.study.evaluation.run_context import BEGUN
from cbtrain.study.evaluation.therapists import TUNED
from cbtrain.study.trained_run import weights_digest
from cbtrain.tokens.chat_files import saved_format

SAYS_NOTHING = {
    *("judging", "judges", "allocation"),  # raters change no turn
    *("sessions_in_flight", "perplexity_tokens", "patient_provider", "max_failures"),
}
EXTENDS = {"seeds", "max_patients"}
ADDED = {
    *("therapists", "patient_model", "protocol", "prompt", "end_phrases", "patient_messages", "questionnaire"),
    "drift",  # turns said before count, and a note says that nobody looked at them
}
"""Settings of an evaluation that those versions left out, that only add sessions, and that they did not have."""

NEUTRAL = {"patients": None, "simulators": {}, "min_turns": 0, "course": {"sessions": "auto"}}
"""Others that they did not have, and the values with which nothing is said otherwise than then."""


def earlier_settings(events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the settings with which an older version began the run, None if none has."""
    settings = next((as_always(e["settings"]) for e in events if e["kind"] == BEGUN and "settings" in e), None)
    if settings and isinstance(settings.get("evaluation"), dict):
        settings["evaluation"] = {key: value for key, value in settings["evaluation"].items() if key not in EXTENDS}
    return settings


def settings_of_run(protocol: EvaluationProtocol, folder: Path) -> dict[str, Any]:
    """Return the settings that an older version would write of the run in ``folder`` today."""
    config, api = protocol.config, protocol.player.provider
    settings = as_always(config.evaluation.model_dump(mode="json", exclude=SAYS_NOTHING | EXTENDS | ADDED))
    settings["course"] = {"sessions": "auto" if protocol.course.mode == "first" else protocol.course.mode}
    settings = {name: value for name, value in settings.items() if name not in NEUTRAL or value != NEUTRAL[name]}
    layout = saved_format(folder / "therapist")
    profiles = [profile.model_dump_json() if profile else name for name, profile in protocol.patients.items()]
    system = next((therapist.system for therapist in protocol.therapists if therapist.name == TUNED), "")
    return {
        "evaluation": settings | {"patient_provider": api.identity() if api else None},
        "seed": config.seed,
        "tokens.therapist_system": system,
        **{f"model.{key}": getattr(config.model, key) for key in ("weights", "double_quantization", "compute")},
        "the adapter": weights_digest(folder / "therapist"),
        **({"the chat format": layout.template} if layout else {}),
        "the patients' profiles": text_digest("\n".join(profiles)),
    }
