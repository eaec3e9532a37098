"""Which sessions of a course are held with whom, and what is known when each begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from cbtrain.errors import UserError
from cbtrain.eval.simulation.config import CourseConfig
from cbtrain.eval.simulation.simulators import SessionBegins
from cbtrain.files import text_digest
from cbtrain.patients.case import FIRST_SESSIONS, Case
from cbtrain.study.evaluation.identity import wherever
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Phase, phase_of


@dataclass(frozen=True)
class CoursePlan:
    """The sessions that ``config`` asks for, of ``patients``, some of whom are ``cases``."""

    config: CourseConfig
    patients: Mapping[str, Profile | None]
    cases: Mapping[str, Case]

    @cached_property
    def mode(self) -> Literal["first", "phases", "whole"]:
        if self.config.sessions != "auto":
            return self.config.sessions
        return "first" if any(self._lacking(patient) for patient in self.patients) else "phases"

    @cached_property
    def numbers(self) -> list[int]:
        """Return the numbers of the sessions in the course; 0 stands for a first meeting by itself."""
        if self.mode == "first":
            return [0]
        if self.mode == "whole":
            return list(range(1, self.config.length + 1))
        return sorted(FIRST_SESSIONS[phase] for phase in set(self.config.phases))

    def problems(self) -> list[str]:
        """Return which patients lack the summary of a phase whose session is to be held."""
        return self._without_summaries if self.mode == "phases" else []

    @property
    def short(self) -> list[str]:
        """Return which patients keep others, who have the summaries, from later sessions."""
        some = self.config.sessions == "auto" and any(not self._lacking(patient) for patient in self.patients)
        return self._without_summaries if some else []

    @property
    def _without_summaries(self) -> list[str]:
        return [
            f"{patient} has no previous summary for the phase{'s' if lacking[1:] else ''} {', '.join(lacking)}"
            for patient in self.patients
            if (lacking := self._lacking(patient))
        ]

    def _lacking(self, patient: str) -> list[Phase]:
        known = self.cases[patient].phases if patient in self.cases else {}
        return [phase for phase in self.config.phases if FIRST_SESSIONS[phase] > 1 and phase not in known]

    def begins(self, patient: str, number: int) -> SessionBegins | None:
        """Return what is known when the session ``number`` of ``patient`` begins, as far as it is fixed."""
        if not number:
            return None
        if number == 1 or self.mode == "whole":
            return SessionBegins(number)
        later = self.cases[patient].phases[phase_of(number)]  # type: ignore[index]
        return SessionBegins(number, later.summary, later.since)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """Return what a plan says of the sessions; nothing of first meetings, as ever."""
        if self.mode == "first":
            return {}
        told = {"told in": self.config.told}
        if self.mode == "phases":
            fixed = {patient: self._digest(patient) for patient in self.patients}
            return {"numbers": self.numbers, **told, "previous summaries": fixed}
        return {"numbers": self.numbers, **told, "summaries": self._writer}

    def described(self, patient: str, number: int) -> dict[str, Any]:
        """Return all that decides what is known when a session begins, but summaries that are yet to be written."""
        described: dict[str, Any] = {"session": number, "told in": self.config.told}
        if self.mode == "whole" and number == 1:  # no summary has been read yet
            return described
        if self.mode == "whole":
            writer = self.config.summary.provider
            moved = {"written by": wherever(writer)} if writer else {}
            return described | {"summaries": self._writer | moved}
        begins = self.begins(patient, number)
        assert begins is not None
        return described | {"begins with": text_digest(f"{begins.summary}\0{begins.since}")}

    def _digest(self, patient: str) -> str:
        phases = self.cases[patient].phases
        return text_digest("".join(f"{phase}{later.model_dump_json()}" for phase, later in sorted(phases.items())))

    @property
    def _writer(self) -> dict[str, Any]:
        summary = self.config.summary
        writer = summary.provider.identity() if summary.provider else "the therapist"
        return {"written by": writer, **summary.model_dump(mode="json", exclude={"provider", "attempts", "min_words"})}

    def check(self) -> None:
        """Raise UserError if sessions are asked for that cannot begin."""
        foreign = next((case for case in self.cases.values() if case.foreign), None)
        if foreign is not None and self.mode != "first" and self.config.told == "opening":
            hint = "Set evaluation.course.told=prompts."
            what = f"the first words that are written are English, and {foreign.id} speaks {foreign.foreign}"
            raise UserError(what, where="evaluation.course.told", hint=hint)
        if problems := self.problems():
            hint = (
                "Write them (`phases` of a patient), leave the phase out (evaluation.course.phases), or set sessions."
            )
            raise UserError("; ".join(problems), where="evaluation.course", hint=hint)
