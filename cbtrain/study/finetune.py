"""Train the adapter of one speaker and save it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.files import seal, write_atomic
from cbtrain.model.adapters.methods import AdapterFiles, save_adapter
from cbtrain.model.config import LoraConfig
from cbtrain.model.decoder import Decoder
from cbtrain.model.methods import LORA
from cbtrain.model.undertrained_tokens import weak_rows
from cbtrain.model.weights.memory import weight_memory
from cbtrain.study.adapter_card import adapter_card
from cbtrain.study.datasets import SpeakerDataset
from cbtrain.study.forgetting import forgetting_lines, measure_texts
from cbtrain.study.reference import with_reference
from cbtrain.study.run_files import SUMMARY
from cbtrain.study.same_study import require_same
from cbtrain.study.stages import StageSpec
from cbtrain.tokens.adapter_tokenizer import tokenizer_files
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.chat_files import TrainedPrompt, format_files
from cbtrain.tokens.system_prompts import trained_prompt
from cbtrain.tokens.tokenize import TokenizedCorpus
from cbtrain.training import distributed
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.engine import State
from cbtrain.training.engines.zero3 import whole
from cbtrain.training.loop import train
from cbtrain.training.memory.meter import MemoryMeter
from cbtrain.training.result import TrainingResult
from cbtrain.training.stage import Stage

PIECE = re.compile(r"[#@]\d+$")


def train_adapter(
    spec: StageSpec, dataset: SpeakerDataset, folder: Path, console: Console, *, base: str | None
) -> dict[str, Any]:
    """Train the adapter of one speaker and save it to ``folder/SPEAKER``. Its files call the base model ``base``
    (default: its folder). Return the stage's summary, which is written to ``folder/training/SPEAKER/summary.json``."""
    with MemoryMeter(spec.device) as meter:
        levels = spec.levels(dataset.train.documents, console)  # before weights take the memory that it looks at
        decoder = spec.decoder(console)
        computed = {"weights of the base model": decoder.fingerprint, "Triton kernels": decoder.kernels.names}
        require_same(computed, "Give every node the same files and packages.")
        prepared = prepare_adapter(spec, dataset, decoder, folder, console, base=base, levels=levels)
        result, values = train(prepared.stage, console, meter)
    summary = deliver_adapter(prepared, result, values)
    say(console, f"{spec.name}: {validation_text(result)} after {result.tokens:,} tokens")
    for line in forgetting_lines(result.forgetting):
        say(console, f"{spec.name}: {line}")
    return summary


@dataclass(frozen=True, slots=True)
class PreparedAdapter:
    """One speaker's adapter before its training: the ``stage``, and what the delivered files say of it. ``base`` is
    what they call the base model, ``folder`` the run's."""

    spec: StageSpec
    dataset: SpeakerDataset
    stage: Stage
    prompt: TrainedPrompt
    layout_files: dict[str, str | bytes]
    provenance: dict[str, Any]
    folder: Path
    base: str


def prepare_adapter(
    spec: StageSpec,
    dataset: SpeakerDataset,
    decoder: Decoder,
    folder: Path,
    console: Console,
    *,
    base: str | None,
    levels: str | tuple[str, ...],
) -> PreparedAdapter:
    """Return the training of the adapter that ``decoder`` has, in the run's ``folder``; say what it is trained on.
    ``levels`` are :meth:`StageSpec.levels`."""
    speaker, settings = spec.name, spec.settings
    assert speaker != "base"
    assert spec.model.folder is not None
    base = base or str(spec.model.folder.resolve())
    if settings.method == "lora" and not settings.lora.modules_to_save:
        with whole([decoder.lm_head.weight]):
            warn_of_weak_stop(speaker, decoder, dataset.renderer, console)
    if settings.method != LORA.name and unused_lora(settings):
        say(console, f"{speaker}: {speaker}.lora is set, and method {settings.method} does not use it")
    _say_dataset(speaker, dataset, spec.config, console)
    dataset = with_reference(spec, dataset, decoder, folder / "training" / speaker, console)
    tokens = spec.config.tokens
    prompt = trained_prompt(dataset.train.units, speaker, tokens, dataset.renderer)
    if speaker == "therapist" and prompt.text is None:
        say(console, f"{speaker}: no system prompt is saved for serving: {prompt.note}")
    layout_files = format_files(dataset.renderer.format, [dataset.renderer.answer_stop_id], prompt)
    provenance: dict[str, Any] = {"speaker": speaker, "therapist_system": tokens.therapist_system}
    provenance |= {"system": tokens.system} if tokens.system != "ours" else {}
    stage = Stage(
        name=speaker,
        decoder=decoder,
        documents=dataset.train.documents,
        validation=dataset.validation.documents,
        settings=settings,
        folder=folder / "training" / speaker,
        runtime=spec.runtime,
        files=AdapterFiles(decoder, base=base, provenance=provenance, extra_files=layout_files),
        groups=phases_of(dataset.validation),
        levels=levels,
    )
    return PreparedAdapter(spec, dataset, stage, prompt, dict(layout_files), provenance, folder, base)


def deliver_adapter(prepared: PreparedAdapter, result: TrainingResult, values: State) -> dict[str, Any]:
    """Measure what the trained adapter (``values`` on the leading rank), which the decoder has, has made it forget, and
    save the adapter to ``folder/SPEAKER``. Return the stage's summary, which is written to
    ``folder/training/SPEAKER/summary.json``."""
    spec, dataset, stage = prepared.spec, prepared.dataset, prepared.stage
    decoder, speaker, tokenized = stage.decoder, stage.name, dataset.train
    result.forgetting = measure_texts(decoder, dataset.untrained, stage.settings.pack_tokens)
    memory = weight_memory(decoder)
    result.parameters = memory.parameters
    result.share_of_corpus = tokenized.share * min(1.0, result.tokens / tokenized.documents.tokens)
    result.data = {"chat_format": dataset.renderer.format.name, **tokenized.describe(), **result.data}
    weights = {"format": str(decoder.format), "bytes": memory.bytes, "bytes_per_parameter": memory.bytes_per_parameter}
    summary = {**result.as_dict(), "base_weights": weights, "attention": decoder.backend}
    summary["kernels"] = decoder.kernels_in_training
    if distributed.rank() == 0:
        assert decoder.adapter is not None
        assert spec.model.folder is not None
        extra_files: dict[str, str | bytes] = {
            **prepared.layout_files,
            **tokenizer_files(spec.model.folder, dataset.renderer.tokenizer),
            "README.md": adapter_card(spec, dataset, prepared.prompt, result, decoder.adapter, prepared.base),
        }
        provenance, place = {**prepared.provenance, "training": result.as_dict()}, prepared.folder / speaker
        save_adapter(decoder, place, base=prepared.base, provenance=provenance, extra_files=extra_files, values=values)
        write_atomic(stage.folder / SUMMARY, json.dumps(seal(summary), indent=2) + "\n")
    return summary


def unused_lora(settings: StageConfig) -> bool:
    """Return whether ``lora`` has other settings than the defaults; alpha is one that a tiny model has of its own."""
    return bool(settings.lora.model_copy(update={"alpha": LoraConfig().alpha}) != LoraConfig())


def validation_text(result: TrainingResult) -> str:
    before, after = result.validation_before, result.validation_best
    if result.pairs:
        before_and_best = (f"{pairs['accuracy']:.1%}" for pairs in (result.pairs_before, result.pairs))
        return "validation pairs ranked rightly: {} before, {} at its best".format(*before_and_best)
    if before is None:
        return "no validation, the last weights"
    best = f"{after:.3f} at its best" if after is not None else "never finite"
    return f"validation loss {before:.3f} before, {best}"


def phases_of(selection: TokenizedCorpus) -> list[str]:
    """Return the treatment phase of each document; ``all`` if a document is a whole course."""
    phases = {unit.name: unit.sessions[0].phase if len(unit.sessions) == 1 else "all" for unit in selection.units}
    names = selection.documents.names
    # Pieces and records of a unit bear its name and their number.
    return [phases.get(name) or phases.get(PIECE.sub("", name), "all") for name in names]


def _say_dataset(speaker: str, dataset: SpeakerDataset, config: StudyConfig, console: Console) -> None:
    tokenized, settings = dataset.train, getattr(config, speaker)
    compares = settings.objective != "sft"
    what = "pairs of answers" if compares else f"{config.tokens.document}s"
    tokens, offered = tokenized.documents.tokens, tokenized.tokens_offered
    of_tokens = f"{tokens:,} tokens" if tokenized.share == 1 else f"{tokens:,} of about {offered:,} tokens"
    text = f"{speaker}: {len(tokenized.units):,} of {tokenized.units_offered:,} {what}, {of_tokens}"
    if compares:
        text += f" (with each answer in a document of its own {tokenized.whole_tokens or 0:,})"
    else:
        text += f", in {len(tokenized.documents):,} documents"
    if tokenized.paper_tokens is not None and config.tokens.recipe == "whole":
        text += f" (by the 2024 recipe {tokenized.paper_tokens:,} tokens)"
    if tokenized.truncated:
        text += f"; {tokenized.truncated} of {len(tokenized.units)} are cut between turns (tokens.document_tokens)"
    if tokenized.dropped:
        text += f"; {tokenized.dropped:,} tokens of turns are left out of the context, which was full"
    say(console, text)
    if (taken := len(tokenized.units) + len(tokenized.skipped)) < tokenized.units_offered:
        left_out = f"{tokenized.units_offered - taken:,} {what}, {1 - tokenized.share:.0%} of the words, are not used"
        reason = f"{speaker}.token_budget is {settings.token_budget:,}"
        say(console, f"{speaker}: {left_out}: {reason}; null takes them all")
    say(console, f"{speaker}: {_length_text(tokens, settings)}; {_validation_plan(dataset.validation, what)}")


def _length_text(tokens_per_epoch: int, settings: StageConfig) -> str:
    """Return how long the stage lasts at most, and what ends it."""
    tokens = settings.tokens_in_all(tokens_per_epoch)
    epochs = tokens / tokens_per_epoch
    end = "max_epochs" if epochs == settings.max_epochs else "token_budget"
    return f"{epochs:.3g} epoch{'s' * (epochs != 1)}, {tokens:,} tokens ({end})"


def _validation_plan(validation: TokenizedCorpus, what: str) -> str:
    if not validation.units:
        return "no validation"
    used, offered = len(validation.units), validation.units_offered
    return f"validation on {used:,} of {offered:,} {what}, {validation.documents.tokens:,} tokens"


def warn_of_weak_stop(speaker: str, decoder: Decoder, renderer: ChatRenderer, console: Console) -> None:
    """Warn that the model may never stop if its base was never trained on the token that ends a turn."""
    stop = renderer.answer_stop_id
    for ratio in weak_rows(decoder, [stop]).values():
        token = renderer.decode([stop])
        text = (
            f"Warning: the base model hardly knows its stop token {token!r} (its output row has {ratio:.0%} of the "
            f"usual norm), and a LoRA adapter does not train it: the {speaker} may not learn to stop. Use an instruct "
            f"model, tokens.format=plain, or {speaker}.lora.modules_to_save=[embed_tokens,lm_head]."
        )
        say(console, text)
