"""One stage of training and its state: counters, engine and best parameters, kept in checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cbtrain.model.decoder import Decoder
from cbtrain.tokens.document import Document
from cbtrain.training import distributed
from cbtrain.training.checkpoints.checkpoint import Checkpoint, ParameterFiles, PlainFiles, set_aside
from cbtrain.training.checkpoints.resuming import check_same, find_best, find_newest
from cbtrain.training.checkpoints.writer import remove_leftovers
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.training.engines.engine import State, TrainingEngine
from cbtrain.training.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training. ``name`` is its name in metrics, warnings and settings. The parameters of ``decoder`` that
    require a gradient are trained.

    ``documents`` are those of one epoch. ``validation`` is measured before the first step, every
    ``settings.validate_every`` tokens and at the end; ``groups``, one name for each validation document, has the
    loss by group too (empty: one group). ``levels`` are what the layers compute again
    (:data:`cbtrain.model.fused.levels.LEVELS`) if that was chosen by memory. Checkpoints, in which trained
    parameters lie as ``files`` says, and ``metrics.jsonl`` are written to ``folder``. ``settings`` is the recipe,
    ``runtime`` how it is run: an interrupted stage may continue with other values of the latter only.
    """

    name: str
    decoder: Decoder
    documents: Sequence[Document]
    validation: Sequence[Document]
    settings: StageConfig
    folder: Path
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    files: ParameterFiles = field(default_factory=PlainFiles)
    groups: Sequence[str] = ()
    levels: str | tuple[str, ...] | None = None

    @property
    def levels_now(self) -> str | tuple[str, ...]:
        """What the layers compute again: ``levels``, or what ``settings`` say."""
        return self.levels or self.settings.fixed_level

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


class StageState:
    """``resumed`` says whether a checkpoint was found in the stage's folder. ``best`` are the parameters of the best
    validation so far, on the leading rank; ``warnings`` are about checkpoints that cannot be used.

    Raises UserError if the checkpoint was written with other settings.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.engine = make_engine(stage.decoder, stage.settings, stage.runtime)
        self.progress = Progress()
        self.best: State = {}
        self.warnings: list[str] = []
        self.saved: tuple[int, int | None] | None = None
        """Step and validation of the last checkpoint."""
        self.resumed = self._resume(self.warnings.append)

    def _resume(self, warn: Callable[[str], None]) -> bool:
        folder, files = self.stage.checkpoints, self.stage.files
        if self.engine.rank == 0:
            remove_leftovers(folder)
            if self.stage.runtime.resume == "never":
                set_aside(folder)
        distributed.barrier()
        newest = find_newest(folder, files, warn)
        if newest is None:
            return False
        check_same(newest, self.stage.settings, self.stage.name, folder)
        self.progress = Progress.read(newest.state["progress"])
        self.engine.load(newest.parameters, newest.optimizer)
        self.mark_saved()
        best = find_best(folder, files, self.progress, newest, warn)
        if self.engine.rank == 0:
            self.best = dict(best)
        return True

    def mark_saved(self) -> None:
        self.saved = (self.progress.step, self.progress.validated)

    def is_saved(self) -> bool:
        """Return whether nothing has changed since the last checkpoint."""
        return self.saved == (self.progress.step, self.progress.validated)

    def checkpoint(self, parameters: State, optimizer: State) -> Checkpoint:
        """Return a copy of the whole state, which further training does not change."""
        progress = self.progress
        last = progress.curve[-1] if progress.curve else {}
        last = last if last.get("step") == progress.step else {}
        loss, pairs = last.get("validation_loss"), last.get("pairs")
        state = {
            "progress": json.loads(json.dumps(progress.as_dict())),
            "validation_loss": loss if loss is not None and math.isfinite(loss) else None,
            **({"validation_error": 1 - pairs["accuracy"]} if pairs else {}),
            "config": self.stage.settings.model_dump(mode="json"),
            "written_by": {"engine": self.stage.runtime.engine, "ranks": self.engine.world},
        }
        return Checkpoint(state, parameters, optimizer)

    def restore_best(self) -> None:
        """Load the best parameters into the decoder. If no validation was finite, or the best one's files are gone, the
        last ones stay."""
        if not distributed.agreed(bool(self.best)):
            self.best = self.engine.parameters()
        else:
            shapes = {name: getattr(p, "ds_shape", p.shape) for name, p in self.engine.live.items()}
            fixed = self.engine.fixed()
            shapes |= {name: tensor.shape for name, tensor in fixed.items()}
            dtypes = {name: tensor.dtype for name, tensor in fixed.items()}
            self.engine.load(distributed.Shared(self.best, shapes, dtypes), None)


def make_engine(decoder: Decoder, config: StageConfig, runtime: RuntimeConfig) -> TrainingEngine:
    """Return the engine that ``runtime`` names, over what is trainable in ``decoder``. Raises UserError if the
    package that it needs is not installed."""
    if runtime.engine == "torch":
        from cbtrain.training.engines.torch_engine import TorchEngine

        return TorchEngine(decoder, config)
    from cbtrain.training.engines.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(decoder, config, runtime)
