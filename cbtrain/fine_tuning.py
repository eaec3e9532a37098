"""Train the adapter of one speaker and save it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console

from cbtrain.config import StudyConfig
from cbtrain.errors import UserError
from cbtrain.generation.local_model import pick_device
from cbtrain.lessons import Lessons
from cbtrain.model.adapters.lora import check_targets
from cbtrain.model.adapters.methods import inject, save_adapter
from cbtrain.model.architecture import Architecture
from cbtrain.model.attention.packed import choose_backend
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.formats import weight_format
from cbtrain.model.untrained import weak_rows
from cbtrain.model.weights.loading import load_configured
from cbtrain.model.weights.memory import weight_memory
from cbtrain.model.weights.progress import loading_bar
from cbtrain.telling import say
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.formats import format_files
from cbtrain.training.config import TrainingConfig
from cbtrain.training.loop import train
from cbtrain.transcripts.types import Role


def check_adapters(config: StudyConfig, architecture: Architecture) -> None:
    """Find before anything is loaded what cannot be trained: raises UserError on methods, targets and back-ends that do
    not fit the model, its weights or the device."""
    device = pick_device(config.model.device)
    form = weight_format(config.model.weights, device, compute=config.model.compute)
    with torch.device("meta"):
        decoder = Decoder(architecture)
    for speaker in ("therapist", "patient"):
        settings: TrainingConfig = getattr(config, speaker)
        full = settings.method == "full"
        if full and form.name == "nf4":
            fix = "Set model.weights to fp32 or bf16."
            raise UserError("method full needs fp32 or bf16 weights, not nf4", where=f"{speaker}.method", fix=fix)
        dtype = torch.float32 if full else form.compute
        choose_backend(config.model.attention, torch.device(device), dtype, architecture.head_dim)
        if not full:
            try:
                check_targets(settings.lora, decoder)
            except UserError as error:
                raise UserError(error.what, where=f"{speaker}.{error.where}", fix=error.fix) from None


def train_adapter(
    speaker: Role,
    model: Path,
    lessons: Lessons,
    config: StudyConfig,
    folder: Path,
    console: Console,
    *,
    base: str | None,
) -> dict[str, Any]:
    """Train the adapter of one speaker and save it to ``folder/SPEAKER``; returns the report's facts."""
    settings: TrainingConfig = getattr(config, speaker)
    device = pick_device(config.model.device)
    with loading_bar(console) as progress:
        decoder = load_configured(config.model, str(model), device, progress)
    inject(decoder, settings.adapter, seed=settings.seed)
    held = weight_memory(decoder)
    say(
        console,
        f"{speaker}: base weights {decoder.format}, {held.bytes / 1e6:,.1f} MB, {held.bytes_per_parameter:.2f} bytes "
        f"a parameter; attention by {decoder.backend}",
    )
    if settings.method == "lora" and not settings.lora.modules_to_save:
        warn_of_weak_stop(speaker, decoder, lessons.renderer, console)
    chosen, metrics = lessons.chosen, folder / "training" / speaker
    text = f"{speaker}: {len(chosen.documents)} documents, {chosen.documents.tokens:,} tokens an epoch"
    if chosen.paper_tokens is not None and config.tokens.recipe == "whole":
        text += f" (by the 2024 recipe {chosen.paper_tokens:,})"
    if chosen.cut:
        text += f"; {chosen.cut} of {len(chosen.units)} are cut between turns (tokens.document_tokens)"
    if chosen.left_out:
        text += f"; {chosen.left_out:,} tokens of turns found no room as context"
    say(console, text)
    result = train(speaker, decoder, chosen.documents, lessons.unseen.documents, settings, metrics, console)
    result.parameters = held.parameters
    result.share_of_corpus = chosen.share * min(1.0, result.tokens / chosen.documents.tokens)
    result.data = {"chat_format": lessons.renderer.format.name, **chosen.facts(), **result.data}
    if not dist.is_initialized() or dist.get_rank() == 0:
        facts = {"speaker": speaker, "training": result.as_dict(), "therapist_system": config.tokens.therapist_system}
        beside = format_files(lessons.renderer.format, [lessons.renderer.answer_stop_id])
        save_adapter(decoder, folder / speaker, base=base or str(model.resolve()), facts=facts, beside=beside)
    before, after = result.validation_before, result.validation_best
    say(
        console,
        f"{speaker}: validation loss {before:.3f} before, {after:.3f} at its best after {result.tokens:,} tokens",
    )
    weights = {"format": str(decoder.format), "bytes": held.bytes, "bytes_per_parameter": held.bytes_per_parameter}
    return {**result.as_dict(), "base_weights": weights, "attention": decoder.backend}


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
