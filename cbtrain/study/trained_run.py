"""The result of a study's training in its run folder, as the evaluation reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.study.run_files import STATE

KEYS = {"model", "corpus", "training", "seconds"}


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """``model`` is what the base was called in training: a path, a hub id, or a folder inside the run. ``corpus`` and
    ``training`` are the facts for the report; ``seconds`` is how long training took."""

    folder: Path
    model: str
    corpus: dict[str, Any]
    training: list[dict[str, Any]]
    seconds: float

    @classmethod
    def read(cls, folder: Path) -> TrainedRun:
        """Return the trained run in ``folder``. Raises UserError if training is not complete or its file damaged."""
        try:
            state: Any = json.loads((folder / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            hint = "Name a folder that `cbtrain train` made."
            raise UserError("not a trained run", where=folder, hint=hint) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"damaged ({error})", where=folder / STATE, hint="Train again.") from None
        if not isinstance(state, dict) or not set(state) >= KEYS:
            raise UserError("damaged (parts are missing)", where=folder / STATE, hint="Train again.")
        return cls(folder, **{key: state[key] for key in KEYS})

    @property
    def base(self) -> str:
        """The base model's folder or hub id."""
        inside = self.folder / self.model
        return str(inside) if inside.is_dir() else str(self.model)

    @property
    def is_tiny(self) -> bool:
        """Whether the run made its base model itself."""
        return any(stage["name"] == "base" for stage in self.training)
