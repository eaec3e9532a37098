"""Merge an adapter into its base: the result is a model folder that needs no adapter."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.files import atomic_folder
from cbtrain.model.adapters.adapter import Adapter
from cbtrain.model.adapters.merged_files import bring_format, bring_tokenizer
from cbtrain.model.adapters.methods import (
    BASE,
    BASE_WEIGHTS,
    is_whole_model,
    load_adapter,
    method_in,
    require_base,
    weights_file,
)
from cbtrain.model.architecture import parse_architecture, read_model_config
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.weights.card import copy_beside_weights, write_card
from cbtrain.model.weights.checking import EMBEDDING, HEAD, fingerprint_of, read_weights
from cbtrain.model.weights.reading import Progress
from cbtrain.model.weights.saving import SHARD_BYTES, ShardWriter, file_name
from cbtrain.model.weights.stops import write_stop_ids

Into = Literal["original", "dequantized"]

INTO = {
    "original": "its weights",
    "dequantized": "its weights as they are after NF4 quantization",
}


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """``into``: the weights that an adapter trained on NF4 is added to (None: there is no choice). ``force``: take an
    adapter of another base. ``stop_ids``: tokens that end an answer in the adapter's own tokenizer and template."""

    into: Into | None = None
    force: bool = False
    stop_ids: Iterable[int] = ()


def merge(
    model: Path,
    adapter: Path,
    out: Path,
    *,
    base: str,
    options: MergeOptions = MergeOptions(),
    progress: Progress = lambda done, of: None,
) -> int:
    """Write the model folder ``model`` with ``adapter`` merged in to ``out``, completely or not at all. Return how many
    weights changed.

    Each effective weight is computed in fp32 and rounded once, to the dtype of the base's. Weights are read one at a
    time and written in files of at most :data:`SHARD_BYTES`. An adapter that was trained on NF4 weights has learnt to
    correct their rounding errors too, so ``options.into`` must say whether it is added to the ``original`` weights or
    to the ``dequantized`` ones; model card and ``cbtrain.json`` record it. ``base`` is the model's name in the card.
    Tokenizer and template of the adapter replace the base's. Raises UserError if the adapter belongs to another base
    (unless ``options.force``) or cannot be merged.
    """
    if is_whole_model(adapter):
        raise UserError("this is already a whole model", where=adapter, hint="Use the folder as it is.")
    source = read_model_config(model)
    architecture = parse_architecture(source, model / "config.json")
    with torch.device("meta"):
        decoder = Decoder(architecture)
    if reason := method_in(adapter).cannot.get("merge"):
        problem = f"an adapter by method {method_in(adapter).name} cannot be merged: {reason}"
        raise UserError(problem, where=adapter, hint="Serve it together with its base.")
    added = load_adapter(decoder, adapter)
    metadata = added.metadata
    recorded = metadata.get(BASE_WEIGHTS)
    trained_on = WeightFormat.from_text(recorded)
    if recorded and trained_on is None:
        raise UserError(
            f"trained on weights of an unknown format, {recorded!r}", where=adapter, hint="Merge with a later cbtrain."
        )
    into = _choose(options.into, trained_on, adapter)
    fingerprint = fingerprint_of(model, architecture)
    require_base(fingerprint, metadata, weights_file(adapter), force=options.force)
    weights = _Weights(added, trained_on if into == "dequantized" else None, decoder, adapter)
    with atomic_folder(out) as temporary:
        copy_beside_weights(model, temporary)
        writer = ShardWriter(temporary, SHARD_BYTES)
        for name, tensor in read_weights(model, architecture, progress=progress):
            writer.add(file_name(name), weights.merged(name, tensor))
            if architecture.tied_embeddings and name == EMBEDDING and weights.unties(tensor):
                writer.add(HEAD, weights.merged(HEAD, tensor))
                untied = {**source, "tie_word_embeddings": False}
                (temporary / "config.json").write_text(json.dumps(untied, indent=2) + "\n")
            del tensor
        writer.close()
        provenance: dict[str, Any] = {"base": base, "base_fingerprint": fingerprint, "into": into}
        if metadata.get(BASE, fingerprint) != fingerprint:
            provenance["forced_from_base_fingerprint"] = metadata[BASE]
        provenance |= {"adapter": adapter.name, "base_weights_in_training": str(trained_on) if trained_on else None}
        (temporary / "cbtrain.json").write_text(json.dumps({"merged": provenance}, indent=2) + "\n")
        text = f"`{base}` with the adapter `{adapter.name}` ({added.describe()}) added into {INTO[into]}"
        write_card(temporary, base=base, name=out.resolve().name, text=text, tags=["cbtrain", "merged"])
        bring_tokenizer(adapter, temporary)
        bring_format(adapter, temporary)
        write_stop_ids(temporary, options.stop_ids)
    return weights.changed


def _choose(into: Into | None, trained_on: WeightFormat | None, adapter: Path) -> Into:
    nf4 = trained_on is not None and trained_on.name == "nf4"
    if nf4 and into is None:
        hint = "Choose --into original (as other programs will run it) or --into dequantized (the weights of training)."
        raise UserError("this adapter was trained on NF4 weights", where=adapter, hint=hint)
    if into == "dequantized" and not nf4:
        hint = "Leave out --into dequantized."
        raise UserError(
            "this adapter was not trained on NF4 weights, as far as its files say", where=adapter, hint=hint
        )
    return into or "original"


class _Weights:
    """Computes each weight of the merged model, and counts those that the adapter changes."""

    def __init__(self, adapter: Adapter, quantized: WeightFormat | None, decoder: Decoder, where: Path) -> None:
        self.adapter, self.quantized, self.where = adapter, quantized, where
        self.linears = {f"{path}.weight" for path in decoder.linears}
        self.changes = adapter.changed()
        self.changed = 0

    def merged(self, name: str, weight: Tensor) -> Tensor:
        before = weight
        if self.quantized and name in self.linears:  # as training held it
            linear = self.quantized.linear()(weight.shape[1], weight.shape[0], bias=False)
            linear.load_weight(weight, self.quantized.compute)
            before = linear.dequantized()
        if name not in self.changes:
            return before.to(weight.dtype, copy=True)
        self.changed += 1
        after = self.adapter.effective_weight(name, before).to(weight.dtype)
        if not bool(torch.isfinite(after).all()):
            raise UserError(
                f"{name!r} holds NaN or infinity after the merge", where=weights_file(self.where), hint="Train again."
            )
        return after

    def unties(self, embedding: Tensor) -> bool:
        """Return whether head and embedding, one weight in the base, are two after merging."""
        pair = [
            self.adapter.effective_weight(name, embedding) if name in self.changes else embedding.float()
            for name in (EMBEDDING, HEAD)
        ]
        return not torch.equal(*pair)
