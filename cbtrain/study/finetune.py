"""Train the adapter of one speaker and save it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import loading_bar, say
from cbtrain.errors import UserError
from cbtrain.files import write_atomic
from cbtrain.generation.local_model import pick_device
from cbtrain.model.adapters.lora import check_targets
from cbtrain.model.adapters.methods import AdapterFiles, inject, save_adapter
from cbtrain.model.architecture import Architecture
from cbtrain.model.attention.packed import choose_backend
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.formats import weight_format
from cbtrain.model.undertrained_tokens import weak_rows
from cbtrain.model.weights.loading import load_configured
from cbtrain.model.weights.memory import weight_memory
from cbtrain.study.datasets import SpeakerDataset
from cbtrain.study.run_files import SUMMARY
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.formats import format_files
from cbtrain.tokens.tokenize import TokenizedCorpus
from cbtrain.training import distributed
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.zero3 import partitioner, whole
from cbtrain.training.loop import train
from cbtrain.training.memory.meter import MemoryMeter
from cbtrain.training.stage import Stage
from cbtrain.training.telemetry.loggers import check_loggers
from cbtrain.transcripts.types import Role

PIECE = re.compile(r"[#@]\d+$")


def check_adapters(config: StudyConfig, architecture: Architecture) -> None:
    """Find before anything is loaded what cannot be trained: raises UserError on methods, targets and back-ends that do
    not fit the model, its weights or the device, and on packages that are wanted and missing."""
    check_loggers(config.training)
    device = pick_device(config.model.device)
    form = weight_format(config.model.weights, device, compute=config.model.compute)
    with torch.device("meta"):
        decoder = Decoder(architecture)
    for speaker in config.training.speakers:
        settings: StageConfig = getattr(config, speaker)
        choose_backend(config.model.attention, torch.device(device), form.compute, architecture.head_dim)
        if settings.method != "full":
            try:
                check_targets(settings.lora, decoder)
            except UserError as error:
                raise UserError(error.what, where=f"{speaker}.{error.where}", hint=error.hint) from None


def train_adapter(
    speaker: Role,
    model: Path,
    lessons: SpeakerDataset,
    config: StudyConfig,
    folder: Path,
    console: Console,
    *,
    base: str | None,
) -> dict[str, Any]:
    """Train the adapter of one speaker and save it to ``folder/SPEAKER``; returns the report's facts, which are in
    ``folder/training/SPEAKER/summary.json`` too."""
    settings: StageConfig = getattr(config, speaker)
    place, name = folder / "training" / speaker, base or str(model.resolve())
    with MemoryMeter(pick_device(config.model.device)) as meter:
        decoder = load_for_training(speaker, model, config, console)
        if settings.method == "lora" and not settings.lora.modules_to_save:
            with whole([decoder.lm_head.weight]):
                warn_of_weak_stop(speaker, decoder, lessons.renderer, console)
        _tell_lessons(speaker, lessons, config, console)
        held = weight_memory(decoder)
        beside = format_files(lessons.renderer.format, [lessons.renderer.answer_stop_id])
        facts: dict[str, Any] = {"speaker": speaker, "therapist_system": config.tokens.therapist_system}
        stage = Stage(
            speaker,
            decoder,
            lessons.chosen.documents,
            lessons.unseen.documents,
            settings,
            place,
            config.training,
            AdapterFiles(decoder, base=name, facts=facts, beside=beside),
            phases_of(lessons.unseen),
        )
        result, values = train(stage, console, meter)
    chosen = lessons.chosen
    result.parameters = held.parameters
    result.share_of_corpus = chosen.share * min(1.0, result.tokens / chosen.documents.tokens)
    result.data = {"chat_format": lessons.renderer.format.name, **chosen.facts(), **result.data}
    weights = {"format": str(decoder.format), "bytes": held.bytes, "bytes_per_parameter": held.bytes_per_parameter}
    summary = {**result.as_dict(), "base_weights": weights, "attention": decoder.backend}
    if distributed.rank() == 0:
        facts = {**facts, "training": result.as_dict()}
        save_adapter(decoder, folder / speaker, base=name, facts=facts, beside=beside, values=values)
        write_atomic(place / SUMMARY, json.dumps(summary, indent=2) + "\n")
    before, after = result.validation_before, result.validation_best
    best = f"{after:.3f} at its best" if after is not None else "never finite"
    say(console, f"{speaker}: validation loss {before:.3f} before, {best} after {result.tokens:,} tokens")
    return summary


def load_for_training(speaker: Role, model: Path, config: StudyConfig, console: Console) -> Decoder:
    """The base model with a new adapter in it."""
    settings: StageConfig = getattr(config, speaker)
    device, runtime = pick_device(config.model.device), config.training
    placed = None
    if runtime.engine == "deepspeed" and runtime.zero_stage == 3:
        placed = partitioner(device, weight_format(config.model.weights, device).compute, runtime)
    with loading_bar(console) as progress:
        decoder = load_configured(config.model, str(model), device, progress, placed)
    inject(decoder, settings.adapter, seed=settings.seed)
    held = weight_memory(decoder)
    say(
        console,
        f"{speaker}: base weights {decoder.format}, {held.bytes / 1e6:,.1f} MB, {held.bytes_per_parameter:.2f} bytes "
        f"a parameter; attention by {decoder.backend}",
    )
    return decoder


def phases_of(selection: TokenizedCorpus) -> list[str]:
    """The treatment phase that each document belongs to; ``all`` where a document is a course of all phases."""
    phases = {unit.name: unit.sessions[0].phase if len(unit.sessions) == 1 else "all" for unit in selection.units}
    names = selection.documents.names
    # Pieces and records of a unit bear its name and their number.
    return [phases.get(name) or phases.get(PIECE.sub("", name), "all") for name in names]


def _tell_lessons(speaker: Role, lessons: SpeakerDataset, config: StudyConfig, console: Console) -> None:
    chosen = lessons.chosen
    text = f"{speaker}: {len(chosen.documents)} documents, {chosen.documents.tokens:,} tokens an epoch"
    if chosen.paper_tokens is not None and config.tokens.recipe == "whole":
        text += f" (by the 2024 recipe {chosen.paper_tokens:,})"
    if chosen.truncated:
        text += f"; {chosen.truncated} of {len(chosen.units)} are cut between turns (tokens.document_tokens)"
    if chosen.dropped:
        text += f"; {chosen.dropped:,} tokens of turns found no room as context"
    say(console, text)


def warn_of_weak_stop(speaker: Role, decoder: Decoder, renderer: ChatRenderer, console: Console) -> None:
    """Say that a base model may never stop, where the token that ends a turn was never trained."""
    stop = renderer.answer_stop_id
    for ratio in weak_rows(decoder, [stop]).values():
        token = renderer.decode([stop])
        text = (
            f"Warning: the base model hardly knows its stop token {token!r} (its output row has {ratio:.0%} of the "
            f"usual norm), and a LoRA adapter does not train it: the {speaker} may not learn to stop. Use an instruct "
            f"model, tokens.format=plain, or {speaker}.lora.modules_to_save=[embed_tokens,lm_head]."
        )
        say(console, text)
