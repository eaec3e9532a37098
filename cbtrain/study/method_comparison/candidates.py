"""The methods of a comparison, each with its size, and the runs that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.config.sources import Layer
from cbtrain.errors import UserError
from cbtrain.model.architecture import read_architecture
from cbtrain.model.weights.checking import fingerprint_of
from cbtrain.study.anchored import anchored
from cbtrain.study.entity_matching.settings import STAGE
from cbtrain.study.entity_matching.small_base import lessons_seed
from cbtrain.study.method_comparison.budget import Size, lora_size, matched_size
from cbtrain.study.method_comparison.comparison_file import ComparisonFile
from cbtrain.study.method_comparison.run import RunPlan
from cbtrain.study.stages import StageSpec, StudyModel


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method under its ``name``, the ``size`` that it is given, and the learning ``rates`` to choose from."""

    name: str
    size: Size
    rates: list[float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, once the base and the pairs are there: their folders, the base's fingerprint and the pairs'
    hash. ``lessons``: seed of the base's lessons, if it is the task's small one; ``wanted``: how many numbers LoRA
    trains."""

    file: ComparisonFile
    base: Path
    fingerprint: str
    pairs: Path
    data: str
    lessons: int | None
    wanted: int
    candidates: list[Candidate]

    @classmethod
    def of(cls, file: ComparisonFile, base: Path, pairs: Path, data: str, console: Console) -> Comparison:
        """Size every method, and check it against the base. Raises UserError that names one that does not fit."""
        wanted, candidates = 0, []
        for name in file.methods:
            config = file.config(name, str(base))
            try:
                spec = StageSpec.of(config, STAGE, StudyModel.of(config, "real", console))
                spec.check()
                wanted = wanted or lora_size(spec.architecture, spec.weight_format, file.rank)
                size = matched_size(config, spec.architecture, spec.weight_format, wanted)
            except UserError as error:
                where = f"methods.{name}" + (f": {error.where}" if error.where else "")
                raise UserError(error.what, where=where, hint=error.hint) from None
            candidates.append(Candidate(name, size, file.rates(name)))
        fingerprint = fingerprint_of(base, read_architecture(base))
        return cls(file, base, fingerprint, pairs, data, lessons_seed(base), wanted, candidates)

    def plan(self, candidate: Candidate, rate: float, seed: int) -> RunPlan:
        """Return one run of ``candidate``."""
        own: dict[str, Any] = {"learning_rate": rate, "seed": seed}
        layers = [
            Layer("the size of each method", {STAGE: candidate.size.settings}),
            Layer("the run", {STAGE: own}),
        ]
        config = self.file.config(candidate.name, str(self.base), layers)
        return RunPlan(
            candidate.name,
            rate,
            seed,
            anchored(config).model_dump(mode="json"),
            self.fingerprint,
            str(self.pairs.resolve()),
            self.data,
            self.file.prompt,
            self.file.test_pairs,
            self.lessons,
            candidate.size.trained,
            candidate.size.set_by,
        )

    def search(self) -> list[RunPlan]:
        """Return the runs that search the learning rate: every rate, with the first seed."""
        return [self.plan(one, rate, self.file.seeds[0]) for one in self.candidates for rate in one.rates]

    def final(self, best: Sequence[float | None]) -> list[RunPlan]:
        """Return the runs that are compared: every seed at the ``best`` rate of each candidate; none without one."""
        return [
            self.plan(one, rate, seed)
            for one, rate in zip(self.candidates, best, strict=True)
            if rate is not None
            for seed in self.file.seeds
        ]
