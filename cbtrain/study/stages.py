"""What each stage of training is and is fed, found without loading a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.model.adapters.lora import check_targets
from cbtrain.model.architecture import Architecture, read_architecture
from cbtrain.model.config import LoraConfig
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.formats import WeightFormat, weight_format
from cbtrain.model.weights.hub import HUB_FILES, resolve_model
from cbtrain.study.corpus import StudyCorpus, load_corpus
from cbtrain.study.datasets import build_dataset
from cbtrain.study.tiny_base import make_tokenizer, sessions_of, tiny_architecture
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.plain_text import cut_windows, plain_documents
from cbtrain.tokens.tokenizer import load_tokenizer
from cbtrain.training.config import StageConfig
from cbtrain.training.planning.plan import PlannedStage
from cbtrain.training.planning.scenario import Scenario, attention_of
from cbtrain.training.planning.workload import ASSUMED_SHARE, Workload


def planned_stages(
    config: StudyConfig, device: str, world: int, console: Console, only: Sequence[str] = ()
) -> list[PlannedStage]:
    """The stages of ``config`` that a device of the kind ``device`` (``cpu``, ``cuda``) trains on ``world`` ranks.

    The corpus is read and tokenized where there is a tokenizer, else one document a pack is assumed. Raises UserError
    on a corpus, a model's config or settings that cannot be used.
    """
    material = load_corpus(config, console)
    if config.model.path is None:
        with console.status("Training a tokenizer"):
            tokenizer = make_tokenizer(material.split, config)
        architecture = tiny_architecture(config, len(tokenizer), tokenizer.eos_token_id)
        names, positions = ["base", *config.training.speakers], config.tiny.max_positions
    else:
        folder = describing_files(config.model.path)
        architecture, tokenizer = read_architecture(folder), _tokenizer(folder)
        names, positions = list(config.training.speakers), architecture.context
    stages = []
    for name in names:
        if not only or name in only:
            load, notes = _load(name, material, tokenizer, positions, config, console)
            setting = _setting(name, architecture, config, device, world)
            stages.append(PlannedStage(name, getattr(config, name), setting, load, notes))
    if not stages:
        raise UserError(f"no stage {only[0]!r} here", where="--stage", hint=f"The stages are {', '.join(names)}.")
    return stages


def describing_files(name: str) -> Path:
    """The folder of a model with all files but the weights. Raises UserError as :func:`resolve_model`."""
    folder = Path(name).expanduser()
    if folder.is_dir() or name.count("/") != 1:
        return resolve_model(name)
    import huggingface_hub

    wanted = [pattern for pattern in HUB_FILES if "safetensors" not in pattern]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted, ignore_patterns=["original/*"]))
    except Exception:
        return resolve_model(name)  # which says what is wrong


def _tokenizer(folder: Path) -> Any:
    """None where the folder holds a config and no tokenizer."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        return None
    return load_tokenizer(folder)


def _load(
    name: str, material: StudyCorpus, tokenizer: Any, positions: int, config: StudyConfig, console: Console
) -> tuple[Workload, tuple[str, ...]]:
    settings: StageConfig = getattr(config, name)
    if tokenizer is None:
        note = f"No tokenizer here: one document a pack is assumed, {ASSUMED_SHARE:.0%} of it supervised."
        return Workload(settings.pack_tokens), (note,)
    if name == "base":
        chosen, _ = plain_documents(sessions_of(material.split.train), tokenizer, settings.token_budget, settings.seed)
        documents = TokenStore.of(cut_windows(chosen, config.base_window))
    else:
        speaker: Any = name
        documents = build_dataset(speaker, material, tokenizer, positions, config, console).chosen.documents
    # Windows of the base's text do not depend on the packs.
    longest = int(documents.lengths.max()) if name == "base" else config.tokens.document_tokens
    return Workload.of(documents, settings.pack_tokens, longest), ()


def _setting(name: str, architecture: Architecture, config: StudyConfig, device: str, world: int) -> Scenario:
    settings: StageConfig = getattr(config, name)
    form = _format(name, config, device)
    adapter = settings.adapter
    if isinstance(adapter, LoraConfig):
        _check_targets(name, adapter, architecture)
    engine = config.training.engine if name != "base" else "torch"
    made = Scenario(
        architecture,
        form,
        adapter,
        optimizer=settings.optimizer,
        device=device,
        attention=attention_of(config.model.attention, device, form.compute, architecture.head_dim),
        copies=device == "cpu",
        zero_stage=config.training.zero_stage if engine == "deepspeed" else None,
        world=world,
    )
    return PlannedStage(name, settings, made, Workload(settings.pack_tokens)).with_pack(
        settings.activation_checkpointing, settings.pack_tokens
    )


def _format(name: str, config: StudyConfig, device: str) -> WeightFormat:
    model = config.model
    if name == "base":  # made anew, in fp32
        return weight_format("fp32", device)
    return weight_format(model.weights, device, compute=model.compute, double_quantization=model.double_quantization)


def _check_targets(name: str, adapter: LoraConfig, architecture: Architecture) -> None:
    with torch.device("meta"):
        decoder = Decoder(architecture)
    try:
        check_targets(adapter, decoder)
    except UserError as error:
        raise UserError(error.what, where=f"{name}.{error.where}", hint=error.hint) from None
