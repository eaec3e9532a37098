"""An adapter added into its base: a model folder that needs no adapter any more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import cbtrain
from cbtrain.errors import UserError
from cbtrain.files import atomic_folder
from cbtrain.model.adapters.adapter import Adapter
from cbtrain.model.adapters.methods import BASE_WEIGHTS, load_adapter, require_base
from cbtrain.model.adapters.peft_format import CONFIG, WEIGHTS, read_adapter
from cbtrain.model.architecture import parse_architecture, read_model_config
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.linears.nf4 import dequantize, quantize
from cbtrain.model.weights.fingerprint import Fingerprint
from cbtrain.model.weights.reading import Progress, read_tensors, weight_files
from cbtrain.model.weights.saving import SHARD_BYTES, ShardWriter

Into = Literal["original", "dequantized"]

KEPT = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")
"""Files of the base that go along: config, tokenizer, template, licence."""

CARD = """---
base_model: {base}
tags: [cbtrain, merged]
---

# {name}

`{base}` with the adapter `{adapter}` ({method}) added into {into}, by cbtrain {version}.

> {notice}
{stops}"""

INTO = {
    "original": "its weights",
    "dequantized": "its weights as they are after NF4 quantization",
}


def merge(
    model: Path,
    adapter: Path,
    out: Path,
    *,
    base: str,
    into: Into | None = None,
    force: bool = False,
    limit: int = SHARD_BYTES,
    progress: Progress = lambda done, of: None,
) -> int:
    """Write the folder ``model`` with ``adapter`` added to ``out``, whole or not at all; returns how many weights
    changed.

    Each effective weight is computed in fp32 and rounded once, to the dtype of the base's. Weights are read one at a
    time and written in files of at most ``limit`` bytes. An adapter that was trained on NF4 weights has learnt to mend
    their rounding too, so ``into`` must say whether it is added to the ``original`` weights or to ``dequantized`` ones;
    model card and ``cbtrain.json`` record it. ``base`` is what the model card calls the model. Raises UserError where
    the adapter is not one of this base (unless ``force``) or cannot be merged.
    """
    if not (adapter / CONFIG).exists() and (adapter / "config.json").exists():
        raise UserError("this is a whole model already", where=adapter, fix="Use the folder as it is.")
    source = read_model_config(model)
    architecture = parse_architecture(source, model / "config.json")
    config, _, metadata = read_adapter(adapter)
    trained_on = WeightFormat.from_text(metadata.get(BASE_WEIGHTS))
    into = _choose(into, trained_on, adapter)
    with torch.device("meta"):
        decoder = Decoder(architecture)
    added = load_adapter(decoder, adapter)
    if not added.can_merge:
        problem = "an adapter of this method is not a change of weights and cannot be merged"
        raise UserError(problem, where=adapter, fix="Serve it beside its base.")
    weights = _Weights(added, trained_on if into == "dequantized" else None, frozenset(decoder.linears), adapter)
    fingerprint = Fingerprint(tied=architecture.tied_embeddings)
    with atomic_folder(out) as temporary:
        for pattern in KEPT:
            for file in model.glob(pattern):
                if not file.name.endswith(".index.json"):
                    shutil.copyfile(file, temporary / file.name)
        writer = ShardWriter(temporary, limit)
        for stored, tensor, _ in read_tensors(weight_files(model), progress=progress):
            name = stored.removeprefix("model.")
            fingerprint.add(name, tensor)
            if architecture.tied_embeddings and name == "lm_head.weight":
                continue  # the same numbers once more
            writer.add(stored, weights.merged(name, tensor))
            if architecture.tied_embeddings and name == "embed_tokens.weight" and weights.unties(tensor):
                writer.add("lm_head.weight", weights.merged("lm_head.weight", tensor))
                untied = {**source, "tie_word_embeddings": False}
                (temporary / "config.json").write_text(json.dumps(untied, indent=2) + "\n")
        require_base(fingerprint.hexdigest(), metadata, adapter / WEIGHTS, force=force)
        if weights.left:
            problem = f"the base has no weight {min(weights.left)!r}"
            raise UserError(problem, where=adapter / WEIGHTS, fix="Is this adapter for another base model?")
        writer.close()
        method = f"{'DoRA' if config.dora else 'rsLoRA' if config.rslora else 'LoRA'}, rank {config.rank}"
        facts: dict[str, Any] = {"base": base, "base_fingerprint": fingerprint.hexdigest(), "into": into}
        facts |= {"adapter": adapter.name, "base_weights_in_training": str(trained_on) if trained_on else None}
        (temporary / "cbtrain.json").write_text(json.dumps({"merged": facts}, indent=2) + "\n")
        card = CARD.format(
            base=base,
            name=out.name,
            adapter=adapter.name,
            method=f"{method}, alpha {config.alpha:g}",
            into=INTO[into],
            version=cbtrain.__version__,
            notice=cbtrain.NOTICE,
            stops=_bring_format(adapter, temporary),
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return weights.changed


def _choose(into: Into | None, trained_on: WeightFormat | None, adapter: Path) -> Into:
    nf4 = trained_on is not None and trained_on.name == "nf4"
    if nf4 and into is None:
        fix = "Choose --into original (as other programs will run it) or --into dequantized (the weights of training)."
        raise UserError("this adapter was trained on NF4 weights", where=adapter, fix=fix)
    if into == "dequantized" and not nf4:
        fix = "Leave out --into dequantized."
        raise UserError("this adapter was not trained on NF4 weights, as far as its files say", where=adapter, fix=fix)
    return into or "original"


class _Weights:
    """What each weight of the base comes to; ``left`` are those that the adapter changes and that have not come."""

    def __init__(self, adapter: Adapter, quantized: WeightFormat | None, linears: frozenset[str], where: Path) -> None:
        self.adapter, self.quantized, self.linears, self.where = adapter, quantized, linears, where
        self.changes = adapter.changed()
        self.left = set(self.changes)
        self.changed = 0

    def merged(self, name: str, weight: Tensor) -> Tensor:
        before = weight
        if self.quantized and name.removesuffix(".weight") in self.linears and name.endswith(".weight"):
            packed, state = quantize(weight, double_quantization=self.quantized.double_quantization)
            state.dtype = self.quantized.compute
            before = dequantize(packed, state)
        if name not in self.changes:
            return before.to(weight.dtype, copy=True)
        self.left.discard(name)
        self.changed += 1
        after = self.adapter.effective_weight(name, before)
        if after.shape != weight.shape:
            problem = f"its update of {name!r} is {tuple(after.shape)}, the weight {tuple(weight.shape)}"
            raise UserError(problem, where=self.where / WEIGHTS, fix="Is this adapter for another base model?")
        after = after.to(weight.dtype)
        if not bool(torch.isfinite(after).all()):
            raise UserError(f"{name!r} is not finite any more", where=self.where / WEIGHTS, fix="Train again.")
        return after

    def unties(self, embedding: Tensor) -> bool:
        """Whether head and embedding, one weight in the base, come out of the adapter as two."""
        pair = [
            self.adapter.effective_weight(name, embedding) if name in self.changes else embedding.float()
            for name in ("embed_tokens.weight", "lm_head.weight")
        ]
        if torch.equal(*pair):
            self.left.discard("lm_head.weight")
            return False
        return True


def _bring_format(adapter: Path, target: Path) -> str:
    """Put the chat template of the adapter in place of the base's; what the model card says of it."""
    template, facts = adapter / "chat_template.jinja", adapter / "chat_format.json"
    if not template.exists():
        return ""
    shutil.copyfile(template, target / template.name)
    config = target / "tokenizer_config.json"
    if config.exists():  # an old place for the template, which some readers look at first
        settings = json.loads(config.read_text(encoding="utf-8"))
        if settings.pop("chat_template", None):
            config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    stops = json.loads(facts.read_text(encoding="utf-8")).get("stop_strings", []) if facts.exists() else []
    text = "\nChats are laid out by `chat_template.jinja`, as in training."
    return text + (f" End answers at {', '.join(map(repr, stops))} too.\n" if stops else "\n")
