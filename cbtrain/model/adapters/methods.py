"""Adapters of every method: attach one to a decoder, save it, load it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.files import atomic_folder
from cbtrain.model.adapters import own_format
from cbtrain.model.adapters.adapter import Adapter
from cbtrain.model.adapters.lora import check_targets
from cbtrain.model.adapters.peft_format import CONFIG, WEIGHTS, read_adapter
from cbtrain.model.architecture import Architecture, read_architecture
from cbtrain.model.config import FullConfig
from cbtrain.model.decoder import Decoder
from cbtrain.model.fused.obstacles import join_weights
from cbtrain.model.methods import FULL, LORA, Method, method_of
from cbtrain.model.weights.checking import fingerprint_of, read_weights
from cbtrain.model.weights.reading import weight_files
from cbtrain.model.weights.stops import drop_old_template, write_stop_ids

BASE = "base_fingerprint"
"""Metadata of saved weights: which base they belong to (:mod:`cbtrain.model.weights.fingerprint`)."""

BASE_WEIGHTS = "base_weights"
"""Metadata of saved weights: the format in which the base was held in training."""


def inject(decoder: Decoder, config: BaseModel, *, seed: int = 0) -> Adapter:
    """Freeze ``decoder`` and put a new adapter into it, ready to be trained, by the method whose settings ``config``
    are (:mod:`cbtrain.model.methods`).

    Raises UserError on a decoder that already has an adapter, and if the method does not fit the decoder.
    """
    check_targets(config, decoder)
    adapter = attach(decoder, config, decoder.device)
    try:
        adapter.initialize(seed)
    except BaseException:
        adapter.remove()
        raise
    if decoder.savings.fused:
        join_weights(decoder.layers)
    return adapter


def attach(decoder: Decoder, config: BaseModel, device: torch.device) -> Adapter:
    """Freeze ``decoder`` and put an adapter without values into it, whose tensors are on ``device``. Raises UserError
    as :func:`inject`."""
    if decoder.adapter is not None:
        raise UserError("this decoder already has an adapter", hint="Load the base again.")
    method = method_of(config)
    reason = method.cannot.get("nf4")
    if reason and decoder.format is not None and decoder.format.name == "nf4":
        hint = "Hold the weights in fp32 or bf16, or take method lora."
        raise UserError(f"method {method.name} cannot train weights in nf4: {reason}", where="model.weights", hint=hint)
    decoder.requires_grad_(False)
    adapter: Adapter = method.attached(decoder, config, device)
    decoder.adapter = adapter
    decoder.train(decoder.training)  # its modules are in the same mode as the rest
    return adapter


def save_adapter(
    decoder: Decoder,
    folder: Path,
    *,
    base: str,
    provenance: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, str | bytes] | None = None,
    values: Mapping[str, Tensor] | None = None,
    adapter: Adapter | None = None,
) -> None:
    """Write ``adapter`` (default: the one that ``decoder`` has) to ``folder``, atomically; with ``values`` in place of
    its own parameters if they are given.

    ``base`` names the base model; its fingerprint and the format of its weights go into the metadata. ``provenance``
    (JSON) is added to ``cbtrain.json``. ``extra_files`` are further files of the folder, by name; a chat template among
    them is then the only one.
    """
    adapter = adapter or decoder.adapter
    assert adapter is not None
    metadata = {BASE: decoder.fingerprint, BASE_WEIGHTS: str(decoder.format) if decoder.format else None}
    base_metadata = {key: value for key, value in metadata.items() if value}
    with atomic_folder(folder) as temporary:
        adapter.save(temporary, base=base, metadata=base_metadata, values=values)
        for name, content in (extra_files or {}).items():
            (temporary / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        drop_old_template(temporary)
        if (temporary / "config.json").exists():
            write_stop_ids(temporary)
        (temporary / "cbtrain.json").write_text(
            json.dumps({"base": {"name": base, **base_metadata}, **(provenance or {})}, indent=2) + "\n"
        )


class AdapterFiles:
    """The adapter of ``decoder`` in a checkpoint: a folder that can be served like any saved adapter.

    It is the one that the decoder has now: a thread may write it while another one takes its turn.
    """

    FOLDER = "adapter"

    def __init__(
        self,
        decoder: Decoder,
        *,
        base: str,
        provenance: Mapping[str, Any] | None = None,
        extra_files: Mapping[str, str | bytes] | None = None,
    ) -> None:
        assert decoder.adapter is not None
        self.decoder, self.adapter = decoder, decoder.adapter
        self.base, self.provenance, self.extra_files = base, provenance, extra_files

    def save(self, folder: Path, values: Mapping[str, Tensor]) -> None:
        adapter_folder = folder / self.FOLDER
        save_adapter(
            self.decoder,
            adapter_folder,
            base=self.base,
            provenance=self.provenance,
            extra_files=self.extra_files,
            values=values,
            adapter=self.adapter,
        )

    def load(self, folder: Path) -> dict[str, Tensor]:
        adapter_folder = folder / self.FOLDER
        if not is_whole_model(adapter_folder):
            metadata = _metadata(weights_file(adapter_folder))
            require_base(self.decoder.fingerprint, metadata, adapter_folder, force=False)
        return self.adapter.read(adapter_folder)


def load_adapter(decoder: Decoder, folder: str | Path, *, force: bool = False) -> Adapter:
    """Load the adapter in ``folder`` into ``decoder``, frozen: PEFT files, those of another method, or a whole tuned
    model.

    Raises UserError on missing or damaged files, on unsupported features, if tensors do not fit the decoder, and
    if the adapter was trained on another base (unless ``force``).
    """
    folder = Path(folder)
    if is_whole_model(folder):
        metadata = _metadata(weight_files(folder)[0])
        require_base(decoder.fingerprint, metadata, folder, force=force)
        architecture = read_architecture(folder)
        if architecture != decoder.architecture:
            problem = "its config.json differs from the base's"
            raise UserError(problem, where=folder, hint="Is this a tuned model of another base?")
        full = attach(decoder, FullConfig(), decoder.device)
        return _filled(full, read_weights(folder, architecture), metadata, folder)
    config, tensors, metadata = _read(folder)
    weights = weights_file(folder)
    require_base(decoder.fingerprint, metadata, weights, force=force)
    # First without memory: settings may ask for far more than the tensors hold.
    _filled(attach(decoder, config, torch.device("meta")), tensors.items(), metadata, weights).remove()
    device = torch.device("cpu") if decoder.device.type == "meta" else decoder.device
    return _filled(attach(decoder, config, device), tensors.items(), metadata, weights)


def _read(folder: Path) -> tuple[BaseModel, dict[str, Tensor], dict[str, str]]:
    """Return settings, tensors and metadata of an adapter. Raises UserError if its files cannot be read or used."""
    if (folder / own_format.CONFIG).exists():
        return own_format.read_settings(folder), *own_format.read_tensors(folder)
    return read_adapter(folder)


def weights_file(folder: Path) -> Path:
    """Return the file with the tensors of the adapter in ``folder``, which is no whole model."""
    return folder / (own_format.WEIGHTS if (folder / own_format.CONFIG).exists() else WEIGHTS)


def method_in(folder: Path) -> Method:
    """Return the method of the adapter in ``folder``. Raises UserError if its settings cannot be read or used."""
    if (folder / own_format.CONFIG).exists():
        return method_of(own_format.read_settings(folder))
    return FULL if is_whole_model(folder) else LORA


def settings_file(folder: Path) -> Path:
    """Return the file with the settings of what is in ``folder``: an adapter, or a whole model."""
    names = (own_format.CONFIG, CONFIG, "config.json")
    return next((folder / name for name in names if (folder / name).exists()), folder / CONFIG)


def check_adapter(model: Path, folder: Path) -> None:
    """Raise UserError if the adapter in ``folder`` does not fit the weights in ``model``, as :func:`load_adapter` does,
    but without memory for the base, whose files are read only if the adapter says which base it was trained on."""
    architecture = read_architecture(model)
    whole = is_whole_model(folder)
    metadata = _metadata(weight_files(folder)[0] if whole else weights_file(folder))
    if BASE in metadata:
        stamps = tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in weight_files(model))
        found = _fingerprint(model, architecture, stamps)
        require_base(found, metadata, folder, force=False, hint="Name that base.")
    with torch.device("meta"):
        decoder = Decoder(architecture)
    if not whole:
        load_adapter(decoder, folder).remove()
    elif read_architecture(folder) != architecture:
        problem = "its config.json differs from the base's"
        raise UserError(problem, where=folder, hint="Is this a tuned model of another base?")


@lru_cache(maxsize=16)
def _fingerprint(model: Path, architecture: Architecture, stamps: tuple[tuple[int, int], ...]) -> str:
    """Of the weights in ``model``, read once for all its adapters as long as the ``stamps`` of its files are the
    same."""
    return fingerprint_of(model, architecture)


def is_whole_model(folder: Path) -> bool:
    """Return whether ``folder`` holds a tuned model and not an adapter."""
    return settings_file(folder).name == "config.json"


def _filled(
    adapter: Adapter, tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str], where: Path
) -> Adapter:
    """Return ``adapter`` with the values of ``tensors``, frozen. If they do not fit, remove it from the decoder."""
    try:
        adapter.load(tensors, where)
    except BaseException:
        adapter.remove()
        raise
    adapter.metadata = metadata
    for parameter in adapter.parameters().values():
        parameter.requires_grad_(False)
    return adapter


FORCED = "Name that base, or use --force if you know what you do."


def require_base(
    fingerprint: str | None, metadata: Mapping[str, str], where: Path, *, force: bool, hint: str = FORCED
) -> None:
    """Raise UserError, with ``hint``, if ``metadata`` names another base than the one with this ``fingerprint``, unless
    ``force``."""
    trained_on = metadata.get(BASE)
    # Fingerprints of two versions say nothing about each other.
    comparable = trained_on and fingerprint and trained_on.partition(":")[0] == fingerprint.partition(":")[0]
    if comparable and trained_on != fingerprint and not force:
        problem = f"trained on another base model (fingerprint {trained_on}, the one named here has {fingerprint})"
        raise UserError(problem, where=where, hint=hint)


def _metadata(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, framework="pt") as shard:
            return dict(shard.metadata() or {})
    except (FileNotFoundError, SafetensorError):
        return {}  # read_tensors will say what is wrong with it
