"""Who plays the patients of an evaluation, and with which prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cbtrain.eval.config import PATIENT_INSTRUCTIONS
from cbtrain.eval.rating.families import family_of
from cbtrain.eval.simulation.courses import patient_part
from cbtrain.eval.simulation.in_character import DriftPolicy
from cbtrain.eval.simulation.parts import PatientRole
from cbtrain.eval.simulation.simulators import SessionBegins, Simulator
from cbtrain.generation.config import SamplingConfig
from cbtrain.patients.case import Case
from cbtrain.providers.config import ProviderConfig
from cbtrain.study.evaluation.identity import as_always, wherever
from cbtrain.study.evaluation.local_weights import LocalWeights
from cbtrain.transcripts.profile import Profile


@dataclass(frozen=True)
class PatientPlayer:
    """Who plays the patients: ``provider``, or else ``weights`` on this machine. ``instructions`` are for a general
    model; None for an adapter that was trained to be a patient. ``simulator``: the way of playing; None for an adapter,
    and for patients of a corpus if none is named. It sees the ``last`` turns (None: all)."""

    sampling: SamplingConfig
    instructions: str | None
    last: int | None = None
    provider: ProviderConfig | None = None
    weights: LocalWeights | None = None
    layout: str = ""
    simulator: Simulator | None = None
    drift: DriftPolicy = "ignore"

    @cached_property
    def name(self) -> Any:
        """Return what identifies the model."""
        if self.provider is not None:
            return self.provider.identity()
        assert self.weights is not None
        if self.weights.adapter is not None:
            return f"an adapter with weights {self.weights.digests['adapter']}"
        return f"a model with weights {self.weights.digests['weights']}"

    def prompt(self, profile: Profile | None, case: Case | None, begins: SessionBegins | None) -> str:
        """Return the prompt of the patient ``profile`` (``case``: all that is known of them) in a session."""
        if self.simulator is not None:
            assert profile is not None
            return self.simulator.system(profile, case, begins, self._own_instructions)
        return patient_part(PatientRole(profile, self.instructions).system, begins)

    @property
    def _own_instructions(self) -> str:
        """Return the instructions if they are the user's: simulators have rules of their own."""
        return "" if self.instructions in (None, PATIENT_INSTRUCTIONS) else self.instructions or ""

    @property
    def family(self) -> str:
        """The family of its model; empty if it is not known."""
        if self.provider is not None:
            return family_of(self.provider.model)
        return self.weights.family if self.weights else ""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return all that decides what a patient says, but the profile."""
        sampling = as_always(self.sampling.model_dump(mode="json"))
        instructions = self.instructions if self.simulator is None else self._own_instructions
        identity = {"played by": self.name, "instructions": instructions, "sampling": sampling}
        if self.simulator is not None:
            told = {"name": self.simulator.name, "version": self.simulator.version, "template": self.simulator.digest}
            identity["simulator"] = told
        if self.drift != "ignore":
            identity["drift"] = self.drift
        return identity | ({} if self.last is None else {"last turns seen": self.last})

    @cached_property
    def in_session(self) -> dict[str, Any]:
        """Return :attr:`identity` with all that decides what a model on this machine says, and without the address of
        an API that nobody is paid for: the same server may have moved."""
        if self.weights is None:
            assert self.provider is not None
            return {**self.identity, "played by": wherever(self.provider)}
        return {**self.identity, "model": self.weights.digests, "chat format": self.layout}
