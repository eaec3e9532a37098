"""The result of a study's training in its run folder, as the evaluation reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.files import read_sealed
from cbtrain.journal import Check, is_amount, is_section, is_text
from cbtrain.study.run_files import STATE

KEYS: dict[str, Check] = {
    "model": is_text,
    "corpus": lambda value: is_section(value) and {"split", "fingerprint"} <= value.keys(),
    "training": lambda value: isinstance(value, list) and all(is_section(s) and is_text(s.get("name")) for s in value),
    "seconds": is_amount,
}
WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """``model`` is what the base was called in training: a path, a hub id, or a folder inside the run. ``corpus`` and
    ``training`` are the facts for the report; ``seconds`` is how long training took. ``weights`` has the digest of each
    folder of weights that training left, by its name (none in runs of older versions)."""

    folder: Path
    model: str
    corpus: dict[str, Any]
    training: list[dict[str, Any]]
    seconds: float
    weights: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> TrainedRun:
        """Return the trained run in ``folder``. Raises UserError if training is not complete or its file damaged."""
        hint = "Restore it from a copy, or train again."
        try:
            state = read_sealed(folder / STATE, hint)
        except FileNotFoundError:
            hint = "Name a folder that `cbtrain train` made."
            raise UserError("not a trained run", where=folder, hint=hint) from None
        if bad := [key for key, check in KEYS.items() if key not in state or not check(state[key])]:
            raise UserError(f"damaged (no usable {bad[0]!r} in it)", where=folder / STATE, hint=hint)
        weights = state.get(WEIGHTS, {})
        if not is_section(weights):
            raise UserError(f"damaged (no usable {WEIGHTS!r} in it)", where=folder / STATE, hint=hint)
        return cls(folder, **{key: state[key] for key in KEYS}, weights=weights)

    def check_weights(self) -> None:
        """Raise UserError if weights in the run's folder are not those that training left."""
        for name, digest in self.weights.items():
            if weights_digest(self.folder / name) != digest:
                hint = "Restore the folder from a copy, or train again."
                raise UserError("its weights have changed since training", where=self.folder / name, hint=hint)

    @property
    def base(self) -> str:
        """The base model's folder or hub id."""
        inside = self.folder / self.model
        return str(inside) if inside.is_dir() else str(self.model)

    @property
    def is_tiny(self) -> bool:
        """Whether the run made its base model itself."""
        return any(stage["name"] == "base" for stage in self.training)


def weights_digest(folder: Path) -> str:
    """Return a digest of all weights in ``folder``."""
    files = tuple(sorted(folder.glob("*.safetensors")))
    return _digest(files, tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache
def _digest(files: tuple[Path, ...], stamps: tuple[tuple[int, int], ...]) -> str:
    """Of ``files``, read once as long as their ``stamps`` are the same: they may be large."""
    weights = blake2b(digest_size=8)
    for file in files:
        with file.open("rb") as handle:
            while block := handle.read(1 << 24):
                weights.update(block)
    return weights.hexdigest()
