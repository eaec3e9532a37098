"""Services that receive a run's numbers if the user asks for it: TensorBoard and Weights & Biases."""

from __future__ import annotations

import importlib
import importlib.util
import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from cbtrain.errors import UserError
from cbtrain.training.config import RuntimeConfig

WANDB_ID = "wandb-id.txt"
"""The id of a run, so that a resumed run continues under the same name."""


class Logger(ABC):
    """Takes numbers by name (``train/loss``) at an optimizer step."""

    name: ClassVar[str]

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take ``values``, all finite."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


class TensorBoardLogger(Logger):
    """Event files in ``folder/tensorboard``. With ``step`` what an earlier part of the run wrote after it is hidden."""

    name = "TensorBoard"

    def __init__(self, folder: Path, step: int) -> None:
        _require("tensorboard", "training.tensorboard", "false")
        from torch.utils.tensorboard import SummaryWriter

        purge = step + 1 if step else None
        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandbLogger(Logger):
    """A run of ``project`` at Weights & Biases, with its files in ``folder/wandb``.

    It is given numbers and nothing else: no console output, code, git state or facts of the machine leave it. Its own
    environment variables hold, e.g. ``WANDB_MODE=offline``.
    """

    name = "Weights & Biases"

    def __init__(self, project: str, run: str, folder: Path, *, resumed: bool) -> None:
        _require("wandb", "training.wandb", "null")
        wandb: Any = importlib.import_module("wandb")
        kept = folder / WANDB_ID
        identity = kept.read_text(encoding="utf-8").strip() if resumed and kept.exists() else secrets.token_hex(4)
        kept.write_text(identity + "\n", encoding="utf-8")
        settings = wandb.Settings(
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
        )
        self.run: Any = wandb.init(
            project=project, name=run, id=identity, dir=str(folder), resume="allow", settings=settings
        )
        # Steps that a resumed run repeats would be refused on the service's own axis.
        self.run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def close(self) -> None:
        self.run.finish()


def check_loggers(config: RuntimeConfig) -> None:
    """Find before anything is loaded what would stop :func:`open_loggers`. Raises UserError on a missing package."""
    if config.tensorboard:
        _require("tensorboard", "training.tensorboard", "false")
    if config.wandb:
        _require("wandb", "training.wandb", "null")


def open_loggers(config: RuntimeConfig, run: str, folder: Path, *, step: int | None = None) -> list[Logger]:
    """Return the loggers that ``config`` asks for, for the run called ``run``; ``step`` is where a resumed one stands.

    Raises UserError on a missing package. To be called on rank 0 only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loggers: list[Logger] = []
    if config.tensorboard:
        loggers.append(TensorBoardLogger(folder, step or 0))
    if config.wandb:
        loggers.append(WandbLogger(config.wandb, run, folder, resumed=step is not None))
    return loggers


def finite(values: Mapping[str, float | int | None]) -> dict[str, float]:
    """Return ``values`` without those that are none, infinite or not a number."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _require(package: str, where: str, off: str) -> None:
    if importlib.util.find_spec(package) is None:
        hint = f"Install it (`pip install {package}`), or set {where}={off}."
        raise UserError(f"the package {package} is not installed", where=where, hint=hint)
