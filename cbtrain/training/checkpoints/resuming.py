"""Find what an interrupted stage can go on from, the same on every rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.settings import with_current_names
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

Warn = Callable[[str], None]


def find_newest(folder: Path, files: ParameterFiles, warn: Warn) -> Checkpoint | None:
    """The newest whole checkpoint in ``folder``. The leading rank chooses, every rank reads it.

    Raises UserError where a rank cannot read what the leading one can: a folder that they do not share.
    """
    found = newest(folder, files, warn) if distributed.rank() == 0 else None
    if distributed.rank() == 0:
        set_aside(folder, found.step if found else -1)
    step = distributed.agreed(found.step if found else None)
    if step is None or found is not None:
        return found
    try:
        return read(folder / f"step-{step}", files)
    except DamagedCheckpoint as error:
        hint = "Put the run folder where every node sees it."
        problem = f"rank {distributed.rank()} cannot read the checkpoint that rank 0 found ({error})"
        raise UserError(problem, where=folder / f"step-{step}", hint=hint) from None


def find_best(
    folder: Path, files: ParameterFiles, progress: Progress, current: Checkpoint, warn: Warn
) -> Mapping[str, Tensor]:
    """The parameters of the best validation so far. Where their checkpoint is gone, ``progress`` forgets that there was
    one: the next validation decides anew."""
    if progress.best_step is None:
        return {}
    if progress.best_step == current.step:
        return current.parameters
    path = folder / f"step-{progress.best_step}"
    try:
        return read_parameters(path, files)
    except DamagedCheckpoint as error:
        warn(f"the best checkpoint so far, {path}, is lost ({error}): the best of what follows will be kept")
        progress.best_loss = progress.best_step = None
        progress.waited = 0
        return {}


def check_same(found: Checkpoint, config: StageConfig, name: str, where: Path) -> None:
    """Raise UserError where ``found`` was written under other settings, which would make it a run of two halves."""
    before = with_current_names(found.state["config"], StageConfig, where)
    for key, old, new in differences(before, config.model_dump(mode="json"), name):
        hint = f"Set {key}={old} to continue, choose another --out, or set training.resume=never to start again."
        raise UserError(f"{key} is {new}, the interrupted run had {old}", where=where, hint=hint)


def differences(before: Any, after: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Keys at which two nested mappings differ, with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = {**before, **after}
        return [
            found
            for name in names
            for found in differences(before.get(name), after.get(name), f"{key}.{name}" if key else str(name))
        ]
    return [] if before == after else [(key, before, after)]
