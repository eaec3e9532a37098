"""Read a base model's weights one by one, each checked against its config.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.model.architecture import Architecture
from cbtrain.model.decoder import Decoder
from cbtrain.model.weights.fingerprint import Fingerprint
from cbtrain.model.weights.reading import AGAIN, Progress, read_tensors, weight_files

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
    rows: dict[str, Tensor] = {}
    for stored, tensor, file in read_tensors(weight_files(folder), device, progress):
        name = stored.removeprefix("model.")
        if name.endswith("rotary_emb.inv_freq"):  # written by old exporters, derived here
            continue
        if architecture.tied_embeddings and name in (HEAD, EMBEDDING):
            rows[name] = _some_rows(tensor)
            if len(rows) == 2 and not torch.equal(rows[HEAD], rows[EMBEDDING]):
                hint = "If the head has weights of its own, set tie_word_embeddings to false in config.json."
                raise UserError("config.json ties head and embeddings, but they differ", where=folder, hint=hint)
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


def _some_rows(weight: Tensor) -> Tensor:
    return weight[:: max(1, weight.shape[0] // 1000)].cpu().clone()  # a window would keep its whole file in memory
