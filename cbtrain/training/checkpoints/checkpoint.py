"""One checkpoint: a folder ``step-N`` that is there whole or not at all.

```
step-N/
  state.json             counters, stream position, settings; its own checksum, size and checksum of every other file
  adapter/               what is trained, in the format in which it is delivered (or parameters.safetensors)
  optimizer.safetensors  the optimizer's state, whole tensors in fp32 by parameter
```

Nothing in it depends on the number of ranks or on the engine, nothing in it is a pickle, and the frozen base is not in
it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cbtrain.files import atomic_folder, file_digest, seal, unseal
from cbtrain.model.weights.saving import save_tensors
from cbtrain.training.progress import Progress

SCHEMA = "cbtrain.checkpoint/1"
STATE, OPTIMIZER, PARAMETERS = "state.json", "optimizer.safetensors", "parameters.safetensors"


class DamagedCheckpoint(Exception):
    """A checkpoint is incomplete, or differs from what was written."""


class ParameterFiles(Protocol):
    """Writes trained parameters to a folder and reads them, by their names in training."""

    def save(self, folder: Path, values: Mapping[str, Tensor]) -> None: ...

    def load(self, folder: Path) -> dict[str, Tensor]: ...


class PlainFiles:
    """One safetensors file."""

    def save(self, folder: Path, values: Mapping[str, Tensor]) -> None:
        save_tensors(dict(values), folder / PARAMETERS)

    def load(self, folder: Path) -> dict[str, Tensor]:
        return load_file(folder / PARAMETERS)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``state`` is JSON; ``parameters`` and ``optimizer`` are whole tensors on the CPU (:mod:`..engines.engine`)."""

    state: dict[str, Any]
    parameters: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]

    @property
    def step(self) -> int:
        return int(self.state["progress"]["step"])


def write(folder: Path, checkpoint: Checkpoint, files: ParameterFiles) -> Path:
    """Write ``folder/step-N``, whole or not at all."""
    target = folder / f"step-{checkpoint.step}"
    with atomic_folder(target) as temporary:
        files.save(temporary, checkpoint.parameters)
        save_file(dict(checkpoint.optimizer), temporary / OPTIMIZER)
        files_written = sorted(path for path in temporary.rglob("*") if path.is_file())
        checksums = {str(path.relative_to(temporary)): _checksum(path) for path in files_written}
        state = seal({"schema": SCHEMA, **checkpoint.state, "files": checksums})
        (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    return target


def read(folder: Path, files: ParameterFiles) -> Checkpoint:
    """Return the checkpoint in ``folder``. Raises DamagedCheckpoint if a file is missing or differs from what was
    written."""
    state = read_state(folder)
    parameters = read_parameters(folder, files)
    if _damaged(folder, OPTIMIZER, state):
        raise DamagedCheckpoint(f"{OPTIMIZER} is missing or damaged")
    try:
        return Checkpoint(state, parameters, load_file(folder / OPTIMIZER))
    except (OSError, SafetensorError) as error:
        raise DamagedCheckpoint(f"{OPTIMIZER}: {error}") from None


def read_parameters(folder: Path, files: ParameterFiles) -> dict[str, Tensor]:
    """Return the trained parameters only. Raises DamagedCheckpoint if a file of them is missing or differs from what
    was written."""
    state = read_state(folder)
    for name in state["files"]:
        if name != OPTIMIZER and _damaged(folder, name, state):
            raise DamagedCheckpoint(f"{name} is missing or damaged")
    try:
        return files.load(folder)
    except (OSError, SafetensorError, KeyError) as error:
        raise DamagedCheckpoint(str(error)) from None


def read_state(folder: Path) -> dict[str, Any]:
    """Return the JSON part only. Raises DamagedCheckpoint if it is not one, has changed since it was written, or holds
    what no training writes."""
    try:
        state = unseal(json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{STATE} is missing or damaged ({error})") from None
    if state.get("schema") != SCHEMA:
        raise DamagedCheckpoint(f"{STATE} is not a checkpoint, or of another version of cbtrain")
    try:
        Progress.read(state.get("progress"))
    except ValueError as error:
        raise DamagedCheckpoint(f"{STATE} is damaged: {error}") from None
    loss, checksums = state.get("validation_loss"), state.get("files")
    measured = all(isinstance(n, int | float) and math.isfinite(n) for n in (loss, state.get("validation_error", 0)))
    if not isinstance(checksums, dict) or not isinstance(state.get("config"), dict) or not (measured or loss is None):
        raise DamagedCheckpoint(f"{STATE} is incomplete")
    return state


def steps(folder: Path) -> list[Path]:
    """Return the checkpoints in ``folder``, complete or not, the newest first."""
    folders = [path for path in folder.glob("step-*") if path.name[5:].isdigit()]
    return sorted(folders, key=lambda path: -int(path.name[5:]))


def set_aside(folder: Path, after: int = -1) -> None:
    """Rename the skipped checkpoints of later steps than ``after``: a run that continues from an earlier one writes
    these steps again, and the old ones must not count among the newest."""
    for path in steps(folder):
        if int(path.name[5:]) > after:
            target = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(target, ignore_errors=True)
            path.rename(target)


def newest(folder: Path, files: ParameterFiles, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest complete checkpoint in ``folder``, or None. Damaged ones are skipped with a warning."""
    for path in steps(folder):
        try:
            return read(path, files)
        except DamagedCheckpoint as error:
            warn(f"checkpoint {path} is skipped: {error}")
    return None


def _damaged(folder: Path, name: str, state: dict[str, Any]) -> bool:
    return not (folder / name).is_file() or _checksum(folder / name) != state["files"].get(name)


def _checksum(path: Path) -> str:
    return f"{path.stat().st_size}:{file_digest(path)}"
