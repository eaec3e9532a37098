"""Find the checkpoint from which an interrupted stage continues, the same on every rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.settings import changed_settings
from cbtrain.training import distributed
from cbtrain.training.checkpoints.checkpoint import (
    Checkpoint,
    DamagedCheckpoint,
    ParameterFiles,
    newest,
    read,
    read_parameters,
    set_aside,
)
from cbtrain.training.config import StageConfig
from cbtrain.training.progress import Progress

CHANGES_NO_BIT = ("activation_checkpointing",)
"""Settings of a stage that may change when it continues."""

Warn = Callable[[str], None]


def find_newest(folder: Path, files: ParameterFiles, warn: Warn) -> Checkpoint | None:
    """Return the newest complete checkpoint in ``folder``, or None. The leading rank chooses it, every rank reads it.

    Raises UserError if a rank cannot read what the leading one can: a folder that they do not share.
    """
    checkpoint = newest(folder, files, warn) if distributed.rank() == 0 else None
    if distributed.rank() == 0:
        set_aside(folder, checkpoint.step if checkpoint else -1)
    step = distributed.agreed(checkpoint.step if checkpoint else None)
    if step is None or checkpoint is not None:
        return checkpoint
    try:
        return read(folder / f"step-{step}", files)
    except DamagedCheckpoint as error:
        hint = "Put the run folder on storage that every node can read."
        problem = f"rank {distributed.rank()} cannot read the checkpoint that rank 0 found ({error})"
        raise UserError(problem, where=folder / f"step-{step}", hint=hint) from None


def find_best(
    folder: Path, files: ParameterFiles, progress: Progress, current: Checkpoint, warn: Warn
) -> Mapping[str, Tensor]:
    """Return the parameters of the best validation so far. If their checkpoint is lost, ``progress`` is reset as if
    there had been none, and the next validation is the best."""
    if progress.best_step is None:
        return {}
    if progress.best_step == current.step:
        return current.parameters
    path = folder / f"step-{progress.best_step}"
    try:
        return read_parameters(path, files)
    except DamagedCheckpoint as error:
        warn(f"the best checkpoint so far, {path}, cannot be read ({error}): the best of the next ones is kept")
        progress.best_loss = progress.best_step = progress.best_error = None
        progress.waited = 0
        return {}


def check_same(checkpoint: Checkpoint, config: StageConfig, name: str, where: Path) -> None:
    """Raise UserError if ``checkpoint`` was written with other settings than ``config``, those of stage ``name``."""
    for key, old, new in changed_settings(checkpoint.state["config"], config, where):
        if key in CHANGES_NO_BIT:
            continue
        hint = f"Set {name}.{key}={old} to continue, choose another --out, or set training.resume=never to start again."
        raise UserError(f"{name}.{key} is {new}, the interrupted run had {old}", where=where, hint=hint)
