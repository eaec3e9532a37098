"""Tensors out of a model folder, one after another: Hugging Face layout, safetensors only, never a pickle."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.files import read_json_object

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and all bytes."""

AGAIN = "Download the model again."


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder. Raises UserError if there are none, and on a malformed index."""
    # As transformers looks: the single file first.
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.exists():
        weight_map = read_json_object(index, AGAIN).get("weight_map")
        if not isinstance(weight_map, dict):
            raise UserError("malformed index: it has no weight_map", where=index, hint=AGAIN)
        names = sorted(set(map(str, weight_map.values())))
        if not names or any(Path(name).name != name for name in names):
            raise UserError("the index does not name files of this folder", where=index, hint=AGAIN)
        return [folder / name for name in names]
    pickled = [p for p in os.listdir(folder) if p.endswith((".bin", ".pt", ".pth"))]
    reason = "holds pickled weights, which are never opened" if pickled else "holds no weights"
    raise UserError(f"{reason}; model.safetensors is needed", where=folder, hint="Convert it with transformers.")


def read_tensors(
    files: list[Path], device: str | torch.device = "cpu", progress: Progress = lambda done, of: None
) -> Iterator[tuple[str, Tensor, Path]]:
    """Yield each tensor with its name in the file, as it is stored, on ``device``, and the file it came from.

    On the CPU a tensor is a window onto its file: copy what is to outlive it. Raises UserError on a missing, truncated
    or otherwise damaged file, and on weights that hold NaN or infinity or are not floats.
    """
    total, done = sum(file.stat().st_size for file in files if file.exists()), 0
    for file in files:
        try:
            with safe_open(file, framework="pt", device=str(device)) as shard:
                for key in shard.keys():  # noqa: SIM118 (safe_open is not a mapping)
                    tensor = shard.get_tensor(key)
                    _require_finite(key, tensor, file)
                    yield key, tensor, file
                    done += tensor.numel() * tensor.element_size()
                    progress(done, total)
                    del tensor  # a window that stays open keeps its whole shard in memory
        except FileNotFoundError:
            raise UserError("shard is missing", where=file, hint=AGAIN) from None
        except (SafetensorError, OSError) as error:
            raise UserError(f"damaged safetensors file ({error})", where=file, hint="Download it again.") from None
    progress(total, total)


def require_whole(file: Path) -> None:
    """Raise UserError if a safetensors ``file`` is missing, or shorter than its header says; no weight is read."""
    try:
        with safe_open(file, framework="pt"):
            pass
    except FileNotFoundError:
        raise UserError("shard is missing", where=file, hint=AGAIN) from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"damaged safetensors file ({error})", where=file, hint="Download it again.") from None


def _require_finite(key: str, tensor: Tensor, file: Path) -> None:
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        kind = str(tensor.dtype).removeprefix("torch.")
        hint = "Name the model as its makers published it; cbtrain quantizes with model.weights=nf4."
        raise UserError(f"tensor {key!r} is stored as {kind}: this model is already quantized", where=file, hint=hint)
    if tensor.numel() and not all(bool(torch.isfinite(bound)) for bound in torch.aminmax(tensor)):
        raise UserError(f"tensor {key!r} holds NaN or infinity", where=file, hint=AGAIN)
