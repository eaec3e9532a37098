"""The folder of a run: its files, its lock, and whether an interrupted run continues in it."""

from __future__ import annotations

import contextlib
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cbtrain.config.loading import dump_config
from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.environment import describe_environment, pick_device
from cbtrain.errors import UserError
from cbtrain.files import hold, read_sealed, require_new, seal, write_atomic
from cbtrain.journal import is_amount
from cbtrain.model.config import ModelConfig
from cbtrain.model.kernel_choice import described_kernels
from cbtrain.settings import changed_settings, parse_yaml
from cbtrain.study.anchored import anchored
from cbtrain.study.run_files import CONFIG, ENVIRONMENT, STATE, SUMMARY
from cbtrain.training import distributed
from cbtrain.training.checkpoints.resuming import CHANGES_NO_BIT
from cbtrain.training.stage_run import SKIPPED

LOCK = Path("training") / ".lock"
"""Locked by the process that trains, since torchrun's ranks outlive torchrun if that is killed."""

FREE = ("training.", "threads", "sharing", "evaluation.", "providers.", "tokens.cache", "model.device")
"""Settings that may change when an interrupted run continues: they decide where and how it runs, not what is learnt."""


def new_run_folder(name: str) -> Path:
    """Return ``runs/NAME-DATE-TIME``, which does not exist yet."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{stamp}"


def begun_settings(folder: Path) -> Path | None:
    """Return the settings of the run begun in ``folder``, which it continues with, or None. Raises UserError if
    the folder holds something else."""
    settings = folder / CONFIG
    if settings.exists() and (folder / "training").is_dir():
        return settings
    if folder.is_dir() and {path.name for path in folder.rglob("*")} <= {"training", ".lock", "corpus.json"}:
        return None  # killed at its very beginning
    require_new(folder)
    return None


def trained_config(folder: Path) -> Path:
    """Return the settings of the trained run in ``folder``. Raises UserError if training is not complete."""
    if not (folder / STATE).exists() or not (folder / CONFIG).exists():
        problem = "training is not finished here" if (folder / "training").exists() else "not a trained run"
        raise UserError(problem, where=folder, hint="Name a folder that `cbtrain train` finished, or train again.")
    return folder / CONFIG


def newest_trained_run(runs: Path) -> Path | None:
    """Return the run folder under ``runs`` that was trained last, or None."""
    states = sorted(runs.glob(f"*/{STATE}"), key=lambda path: path.stat().st_mtime)
    return states[-1].parent if states else None


def check_same_study(config: StudyConfig, folder: Path) -> None:
    """Raise UserError if the run in ``folder`` is finished, must not continue, or was started with other settings."""
    if (folder / STATE).exists():
        hint = f"`cbtrain evaluate --run {folder}` continues from here; choose another --out to train again."
        raise UserError("training is already finished here", where=folder, hint=hint)
    if config.training.resume == "never":
        hint = "Choose another --out, or leave out training.resume=never to continue."
        raise UserError("an interrupted run is in this folder", where=folder, hint=hint)
    check_same_settings(config, folder)


def check_same_settings(config: StudyConfig, folder: Path) -> None:
    """Raise UserError if the run in ``folder`` was started with other settings."""
    written = parse_yaml(lambda: (folder / CONFIG).read_text(encoding="utf-8"), folder / CONFIG)
    for key, old, new in changed_settings(written, anchored(config), folder / CONFIG):
        if not key.startswith(FREE) and key.rpartition(".")[2] not in CHANGES_NO_BIT:
            hint = f"Set {key}={old} to continue, or choose another --out."
            raise UserError(f"{key} is {new}, the interrupted run has {old}", where=folder, hint=hint)


def hold_folder(folder: Path) -> None:
    """Lock ``folder`` for this run. Raises UserError if another process has it."""
    free = distributed.agreed(hold(folder / LOCK) if distributed.rank() == 0 else True)
    if not free:
        hint = "Wait for it, end it, or choose another --out."
        raise UserError("another process is training in this folder", where=folder, hint=hint)


def begin(config: StudyConfig, folder: Path, corpus: str) -> None:
    """Write settings and environment, so that the run can be repeated or continued. Raises UserError if it continues
    one whose transcripts had another fingerprint than ``corpus``."""
    hold_folder(folder)
    fingerprint_file = folder / "training" / "corpus.json"
    hint = "Restore the transcripts to continue, or choose another --out."
    begun_with = read_sealed(fingerprint_file, "Choose another --out.") if fingerprint_file.exists() else None
    if begun_with is not None and begun_with.get("fingerprint") != corpus:
        raise UserError("the transcripts have changed since this run began", where=folder, hint=hint)
    if distributed.rank() == 0:
        write_atomic(fingerprint_file, json.dumps(seal({"fingerprint": corpus})) + "\n")
        write_atomic(folder / CONFIG, dump_config(anchored(config)))
        _write_environment(folder / ENVIRONMENT, config.model)
    distributed.barrier()


def _write_environment(path: Path, model: ModelConfig) -> None:
    """Write the environment of the run's start, and under ``continued`` the others in which it continued."""
    kernels = described_kernels(model.kernels, torch.device(pick_device(model.device)))
    here = describe_environment() | {"ranks": distributed.world(), "kernels": kernels}
    hint = "Remove it to continue: it only records the machines of this run."
    environment = read_sealed(path, hint) if path.exists() else here
    continued = environment.get("continued", [])
    environments = [environment, *(continued if isinstance(continued, list) else [])]
    if all({key: earlier.get(key) for key in here} != here for earlier in environments if isinstance(earlier, dict)):
        environment["continued"] = [*environments[1:], here]
    write_atomic(path, json.dumps(seal(environment), indent=2) + "\n")


def finished_stage(stage_folder: Path, product: Path, console: Console) -> dict[str, Any] | None:
    """Return the result of a stage finished before this process started, or None. A damaged one is passed over: the
    stage is finished anew, from its last checkpoint."""
    result: dict[str, Any] | None = None
    if distributed.rank() == 0 and (stage_folder / SUMMARY).exists() and product.is_dir():
        try:
            result = read_sealed(stage_folder / SUMMARY, "")
            if result.get("name") != stage_folder.name or not is_amount(result.get("seconds")):
                result = None
                say(console, f"{stage_folder / SUMMARY} is ignored: it is not a result of this stage")
        except UserError as error:
            say(console, f"ignored: {error}")
    result = distributed.agreed(result)
    if result is not None:
        say(console, f"{stage_folder.name}: finished before, kept")
    return result


def remove_fruitless(folder: Path) -> None:
    """Remove what a run has written, unless it has a checkpoint or a list of non-finite steps."""
    if any(folder.glob("training/*/checkpoints/step-*")) or any(folder.glob(f"training/*/{SKIPPED}")):
        return
    for name in ("training", "base", "therapist", "patient"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (CONFIG, ENVIRONMENT):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
