"""The runs of a comparison of objectives, once base and pairs are there, and how many passes equal tokens come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.model.architecture import read_architecture
from cbtrain.model.weights.checking import fingerprint_of
from cbtrain.study.anchored import anchored
from cbtrain.study.corpus import load_corpus
from cbtrain.study.objective_comparison.arms import ORPO, PLACEBO
from cbtrain.study.objective_comparison.comparison_file import ObjectivesFile, on_parts
from cbtrain.study.objective_comparison.data import PairParts
from cbtrain.study.objective_comparison.run import OF_BASE, RunPlan
from cbtrain.study.stages import StageSpec, StudyModel


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared. ``base`` is the base's folder, ``fingerprint`` that of its weights; ``pass_tokens``: tokens of
    one pass over the pairs, by tuned arm."""

    file: ObjectivesFile
    parts: PairParts
    base: Path
    fingerprint: str
    pass_tokens: Mapping[str, int]

    @classmethod
    def of(cls, file: ObjectivesFile, parts: PairParts, base: Path, console: Console) -> Comparison:
        """Count what each arm trains. Raises UserError on an arm that does not fit the base or the pairs, and on a
        budget that would show some arms fewer pairs than others."""
        counts = {name: _pass_tokens(file, name, base, parts, console) for name in file.tuned}
        longest = max(counts, key=lambda name: counts[name])
        if file.tokens is not None and file.tokens < counts[longest]:
            problem = f"tokens: {file.tokens:,} are less than one pass by {longest} ({counts[longest]:,})"
            hint = f"Arms would be shown different pairs: set tokens to {counts[longest]} or more."
            raise UserError(problem, where=file.pairs, hint=hint)
        fingerprint = fingerprint_of(base, read_architecture(base))
        return cls(file, parts, base, fingerprint, counts)

    def tokens(self, arm: str) -> int:
        """Return the tokens that a run of ``arm`` is to train."""
        return self.file.tokens or (self.file.passes or 0) * self.pass_tokens[arm]

    def passes(self, arm: str) -> float:
        """Return the passes over the pairs that this comes to."""
        return self.tokens(arm) / self.pass_tokens[arm]

    def plan(self, arm: str, rate: float, seed: int) -> RunPlan:
        """Return one run of a tuned arm."""
        config = self.file.config_of(arm, str(self.base), data_of(arm, self.parts), rate=rate, seed=seed)
        return self._plan(arm, rate, seed, config)

    def of_base(self) -> RunPlan:
        """Return the run that asks the base alone."""
        return self._plan(OF_BASE, 0.0, 0, self._asked())

    def search(self) -> list[RunPlan]:
        """Return the runs that search the learning rate: every rate, with the first seed."""
        return [self.plan(arm, rate, self.file.seeds[0]) for arm in self.file.tuned for rate in self.file.rates(arm)]

    def final(self, best: Mapping[str, float | None]) -> list[RunPlan]:
        """Return the runs that are compared: every seed at the ``best`` rate of each arm; none without one."""
        return [
            self.plan(arm, rate, seed) for arm, rate in best.items() if rate is not None for seed in self.file.seeds
        ]

    def _asked(self) -> StudyConfig:
        """Return the settings by which pairs are measured: the same for all arms."""
        study = self.file.study()
        therapist = study.therapist.model_copy(update={"objective": "orpo", "supervise": None})
        tokens = study.tokens.model_copy(update={"recipe": "whole"})
        model = study.model.model_copy(update={"path": str(self.base)})
        training = study.training.model_copy(update={"speakers": ["therapist"]})
        asked = {"therapist": therapist, "tokens": tokens, "model": model, "training": training}
        return on_parts(study.model_copy(update=asked), self.parts.pairs)

    def _plan(self, arm: str, rate: float, seed: int, config: StudyConfig) -> RunPlan:
        settings, asked = _dumped(config), _dumped(self._asked())
        return RunPlan(arm, rate, seed, settings, asked, self.fingerprint, self.parts.digest)


def data_of(arm: str, parts: PairParts) -> Path:
    """Return the folder of the pairs that ``arm`` is trained on."""
    return parts.placebo if arm == PLACEBO else parts.pairs


def of_small_base(file: ObjectivesFile) -> RunPlan:
    """Return the run that makes a small base and, of it, the patient of the evaluation."""
    study = file.study()
    config = study.model_copy(update={"training": study.training.model_copy(update={"speakers": ["patient"]})})
    settings = _dumped(config)
    return RunPlan("base", 0.0, 0, settings, settings, "", "")


def _pass_tokens(file: ObjectivesFile, arm: str, base: Path, parts: PairParts, console: Console) -> int:
    """Return the tokens of one pass of ``arm``. Raises UserError that names the arm if it cannot be trained."""
    config = file.config_of(arm, str(base), data_of(arm, parts), rate=file.rates(arm)[0], seed=file.seeds[0])
    whole = config.therapist.model_copy(update={"token_budget": None})
    config = config.model_copy(update={"therapist": whole})
    quiet = Console(quiet=True)
    try:
        spec = StageSpec.of(config, "therapist", StudyModel.of(config, "real", console if arm == ORPO else quiet))
        spec.check()
        return int(spec.dataset(load_corpus(config, quiet), quiet).train.documents.tokens)
    except UserError as error:
        where = f"arms.{arm}" + (f": {error.where}" if error.where else "")
        raise UserError(error.what, where=where, hint=error.hint) from None


def _dumped(config: StudyConfig) -> dict[str, Any]:
    dumped: dict[str, Any] = anchored(config).model_dump(mode="json")
    return dumped
