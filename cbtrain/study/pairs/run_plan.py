"""What the plan of an evaluation says of its therapists: the model behind each, its sampling, its system prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbtrain.eval.simulation.courses import therapist_prompt
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.simulation.simulators import SessionBegins
from cbtrain.settings import parse_yaml
from cbtrain.study.run_files import PLAN

IN_PROMPTS = "prompts"


@dataclass(frozen=True, slots=True)
class RunPlan:
    """``therapists``: what is known of each arm. ``told``: where therapists are told what came before."""

    therapists: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    told: str = IN_PROMPTS

    def system(self, session: SimulatedSession) -> str:
        """Return the therapist's own system prompt in ``session``, without what came before; "" if it is not known."""
        return str(self.therapists.get(session.arm, {}).get("system prompt") or "")

    def known(self, session: SimulatedSession) -> str:
        """Return what the system prompt tells the therapist besides: number, phase and summary of what came before."""
        if not session.number or self.told != IN_PROMPTS:
            return ""
        return therapist_prompt("", session.begins or SessionBegins(session.number))

    def model_facts(self, session: SimulatedSession, which: str) -> dict[str, str]:
        """Return the model of the answer ``which`` (chosen, rejected) and how it was sampled, as far as it is known."""
        about = self.therapists.get(session.arm, {})
        folder, api, sampling = about.get("model"), about.get("api"), about.get("sampling")
        name = Path(str(folder)).name if folder else str(api.get("model", "")) if isinstance(api, dict) else ""
        adapter = about.get("adapter folder")
        facts = {"model": name, "adapter": Path(str(adapter)).name if adapter else ""}
        if isinstance(sampling, dict):
            facts["sampling"] = ", ".join(f"{key} {value}" for key, value in sampling.items())
        return {f"{which}_{key}": text for key, text in facts.items() if text}


def read_plan(run: Path) -> RunPlan:
    """Return the plan of ``run``; one that says nothing if it has none. Raises UserError if the file is damaged."""
    path = run / PLAN
    content = parse_yaml(lambda: path.read_text(encoding="utf-8"), path) if path.is_file() else None
    if not isinstance(content, dict):
        return RunPlan()
    therapists, sessions = content.get("therapists"), content.get("sessions")
    therapists = therapists if isinstance(therapists, dict) else {}
    told = sessions.get("told in", IN_PROMPTS) if isinstance(sessions, dict) else IN_PROMPTS
    return RunPlan({name: about for name, about in therapists.items() if isinstance(about, dict)}, str(told))
