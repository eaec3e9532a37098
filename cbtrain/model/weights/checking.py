"""Read a base model's weights one by one, each checked against its config.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.model.architecture import Architecture
from cbtrain.model.decoder import Decoder
from cbtrain.model.weights.fingerprint import Fingerprint
from cbtrain.model.weights.reading import AGAIN, Progress, read_tensors, weight_files

BLOCK = 1024
"""Rows of two tied weights that are compared at once."""

HEAD, EMBEDDING = "lm_head.weight", "embed_tokens.weight"


def read_weights(
    folder: Path,
    architecture: Architecture,
    device: str | torch.device = "cpu",
    progress: Progress = lambda done, of: None,
) -> Iterator[tuple[str, Tensor]]:
    """Yield each weight of the model in ``folder`` once, by the decoder's name, as it is stored, on ``device``. A head
    that is tied to the embedding is left out.

    Raises UserError as :func:`read_tensors` does, on missing, surplus and wrongly shaped tensors, and on a head that
    config.json calls tied and that differs from the embedding.
    """
    with torch.device("meta"):
        wanted = {name: parameter.shape for name, parameter in Decoder(architecture).named_parameters()}
    tied: tuple[str, Path] | None = None
    for stored, tensor, file in read_tensors(weight_files(folder), device, progress):
        name = stored.removeprefix("model.")
        if name.endswith("rotary_emb.inv_freq"):  # written by old exporters, derived here
            continue
        if architecture.tied_embeddings and name in (HEAD, EMBEDDING):
            if tied is not None and not _equals_stored(tensor, *tied):
                hint = "If the head has weights of its own, set tie_word_embeddings to false in config.json."
                raise UserError("config.json ties head and embeddings, but they differ", where=folder, hint=hint)
            tied = stored, file
            if name == HEAD:
                continue
        if name not in wanted:
            hint = "Is it there twice, or are config.json and weights of two models?"
            raise UserError(f"unexpected tensor {stored!r}", where=file, hint=hint)
        if tensor.shape != wanted[name]:
            shapes = f"{tuple(tensor.shape)}, config.json says {tuple(wanted[name])}"
            raise UserError(f"tensor {stored!r} has shape {shapes}", where=file, hint=AGAIN)
        del wanted[name]
        yield name, tensor
        del tensor  # a window that stays open keeps its whole file in memory
    if wanted:
        missing = f"{len(wanted)} tensors are missing, the first is {next(iter(wanted))!r}"
        raise UserError(missing, where=folder, hint=AGAIN)


def fingerprint_of(folder: Path, architecture: Architecture) -> str:
    """Return the fingerprint of the weights in ``folder``, as ``load_decoder`` finds it."""
    fingerprint = Fingerprint()
    for name, tensor in read_weights(folder, architecture):
        fingerprint.add(name, tensor)
    return fingerprint.hexdigest()


def _equals_stored(tensor: Tensor, name: str, file: Path) -> bool:
    """Return whether ``tensor`` has the values of the tensor ``name`` in ``file``, which is read again in blocks: both
    as a whole can take gigabytes."""
    with safe_open(file, framework="pt") as shard:
        rows = shard.get_slice(name)
        if list(rows.get_shape()) != list(tensor.shape):
            return False
        starts = range(0, len(tensor), BLOCK) if tensor.ndim else ()
        return all(torch.equal(rows[i : i + BLOCK].double(), tensor[i : i + BLOCK].cpu().double()) for i in starts)
