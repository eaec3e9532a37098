"""Every method of fine-tuning by its settings: put one into a decoder, save what it learnt, load it again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.files import atomic_folder
from cbtrain.model.adapters.adapter import Adapter
from cbtrain.model.adapters.full import FullAdapter
from cbtrain.model.adapters.lora import LoraAdapter, check_targets
from cbtrain.model.adapters.peft_format import CONFIG, WEIGHTS, read_adapter
from cbtrain.model.architecture import read_architecture
from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.model.decoder import Decoder
from cbtrain.model.weights.checking import read_weights
from cbtrain.model.weights.reading import weight_files
from cbtrain.model.weights.stops import drop_old_template, write_stop_ids

AdapterConfig = LoraConfig | FullConfig

BASE = "base_fingerprint"
"""Metadata of saved weights: which base they belong to (:mod:`cbtrain.model.weights.fingerprint`)."""

BASE_WEIGHTS = "base_weights"
"""Metadata of saved weights: the format in which the base was held in training."""


def inject(decoder: Decoder, config: AdapterConfig, *, seed: int = 0) -> Adapter:
    """Freeze ``decoder`` and put a new adapter into it, ready to be trained.

    Raises UserError on a decoder that already has an adapter, and where the method does not fit the decoder.
    """
    if isinstance(config, LoraConfig):
        check_targets(config, decoder)
    adapter = _attach(decoder, config, decoder.device)
    try:
        adapter.initialize(seed)
    except BaseException:
        adapter.remove()
        raise
    return adapter


def _attach(decoder: Decoder, config: AdapterConfig, device: torch.device) -> Adapter:
    if decoder.adapter is not None:
        raise UserError("this decoder already has an adapter", hint="Load the base again.")
    decoder.requires_grad_(False)
    if isinstance(config, LoraConfig):
        decoder.adapter = LoraAdapter(decoder, config, device)
    else:
        decoder.adapter = FullAdapter(decoder, config, device)
    decoder.train(decoder.training)  # its modules are in the same mode as the rest
    return decoder.adapter


def save_adapter(
    decoder: Decoder,
    folder: Path,
    *,
    base: str,
    facts: dict[str, Any],
    beside: Mapping[str, str] | None = None,
    values: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the adapter of ``decoder`` to ``folder``, whole or not at all, with other ``values`` in it where they are
    given.

    ``base`` names the base model; its fingerprint and the format of its weights go into the metadata. ``facts`` (JSON)
    go into ``cbtrain.json`` beside it, and so do the texts of ``beside`` by file name.
    """
    assert decoder.adapter is not None
    metadata = {BASE: decoder.fingerprint, BASE_WEIGHTS: str(decoder.format) if decoder.format else None}
    known = {key: value for key, value in metadata.items() if value}
    with atomic_folder(folder) as temporary:
        decoder.adapter.save(temporary, base=base, metadata=known, values=values)
        for name, text in (beside or {}).items():
            (temporary / name).write_text(text, encoding="utf-8")
        if (temporary / "config.json").exists():
            drop_old_template(temporary)
            write_stop_ids(temporary)
        (temporary / "cbtrain.json").write_text(json.dumps({"base": {"name": base, **known}, **facts}, indent=2) + "\n")


class AdapterFiles:
    """How a checkpoint holds the adapter of ``decoder``: in a folder that can be served like any other."""

    FOLDER = "adapter"

    def __init__(self, decoder: Decoder, *, base: str, facts: dict[str, Any], beside: Mapping[str, str]) -> None:
        self.decoder, self.base, self.facts, self.beside = decoder, base, facts, beside

    def save(self, folder: Path, values: Mapping[str, Tensor]) -> None:
        place = folder / self.FOLDER
        save_adapter(self.decoder, place, base=self.base, facts=self.facts, beside=self.beside, values=values)

    def load(self, folder: Path) -> dict[str, Tensor]:
        assert self.decoder.adapter is not None
        place = folder / self.FOLDER
        if not is_whole_model(place):
            require_base(self.decoder.fingerprint, _metadata(place / WEIGHTS), place, force=False)
        return self.decoder.adapter.read(place)


def load_adapter(decoder: Decoder, folder: str | Path, *, force: bool = False) -> Adapter:
    """Put the adapter that lies in ``folder`` into ``decoder``, frozen: PEFT files, or a whole tuned model.

    Raises UserError on missing or damaged files, on unsupported features, where tensors do not fit the decoder, and
    where the adapter was trained on another base (unless ``force``).
    """
    folder = Path(folder)
    if is_whole_model(folder):
        metadata = _metadata(weight_files(folder)[0])
        require_base(decoder.fingerprint, metadata, folder, force=force)
        architecture = read_architecture(folder)
        if architecture != decoder.architecture:
            problem = "its config.json differs from the base's"
            raise UserError(problem, where=folder, hint="Is this a tuned model of another base?")
        full = _attach(decoder, FullConfig(), decoder.device)
        return _filled(full, read_weights(folder, architecture), metadata, folder)
    config, tensors, metadata = read_adapter(folder)
    require_base(decoder.fingerprint, metadata, folder / WEIGHTS, force=force)
    device = torch.device("cpu") if decoder.device.type == "meta" else decoder.device
    return _filled(_attach(decoder, config, device), tensors.items(), metadata, folder / WEIGHTS)


def is_whole_model(folder: Path) -> bool:
    """Return whether ``folder`` holds a tuned model and not an adapter in PEFT files."""
    return not (folder / CONFIG).exists() and (folder / "config.json").exists()


def _filled(
    adapter: Adapter, tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str], where: Path
) -> Adapter:
    """Return ``adapter`` with its values, frozen; without them the decoder is left as it was."""
    try:
        adapter.load(tensors, where)
    except BaseException:
        adapter.remove()
        raise
    adapter.metadata = metadata
    for parameter in adapter.parameters().values():
        parameter.requires_grad_(False)
    return adapter


def require_base(found: str | None, metadata: Mapping[str, str], where: Path, *, force: bool) -> None:
    """Raise UserError where ``metadata`` names another base than the one with the fingerprint ``found``."""
    meant = metadata.get(BASE)
    # Fingerprints of two versions say nothing about each other.
    comparable = meant and found and meant.partition(":")[0] == found.partition(":")[0]
    if comparable and meant != found and not force:
        problem = f"trained on another base model (fingerprint {meant}, the one named here has {found})"
        raise UserError(problem, where=where, hint="Name that base, or use --force if you know what you do.")


def _metadata(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, framework="pt") as shard:
            return dict(shard.metadata() or {})
    except (FileNotFoundError, SafetensorError):
        return {}  # read_tensors will say what is wrong with it
