"""Train a model on pairs, with any method, in a run folder that an interrupted training continues in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import heading, say
from cbtrain.errors import UserError
from cbtrain.files import seal, write_atomic
from cbtrain.model.adapters.methods import AdapterFiles, save_adapter
from cbtrain.model.decoder import Decoder
from cbtrain.model.methods import method_named
from cbtrain.model.weights.card import model_card, public_name
from cbtrain.model.weights.memory import weight_memory
from cbtrain.study.entity_matching.settings import STAGE
from cbtrain.study.finetune import validation_text, warn_of_weak_stop
from cbtrain.study.pipeline import prepare_process
from cbtrain.study.run_files import CONFIG, SUMMARY
from cbtrain.study.run_folder import begin, check_same_settings
from cbtrain.study.stages import StageSpec, StudyModel
from cbtrain.tasks.entity_matching.documents import pair_documents, require_room
from cbtrain.tasks.entity_matching.folder import find_part, read_part
from cbtrain.tasks.entity_matching.pair import Counts, Pair
from cbtrain.tasks.entity_matching.prompts import Prompt
from cbtrain.tasks.entity_matching.reading import PairFile, read_pairs
from cbtrain.tokens.adapter_tokenizer import tokenizer_files
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.chat_files import TrainedPrompt, format_files
from cbtrain.tokens.document import Document
from cbtrain.training import distributed
from cbtrain.training.loop import train
from cbtrain.training.memory.meter import MemoryMeter
from cbtrain.training.stage import Stage
from cbtrain.training.telemetry.loggers import check_loggers

ADAPTER = "adapter"
"""What a run has trained lies in this folder of it."""

NO_SYSTEM = TrainedPrompt(None, "the task has none")


@dataclass(frozen=True, slots=True)
class MatchingData:
    """Pairs to train and to validate on (the latter may be none), and how they are asked; ``explained``: answers have
    the file's explanations."""

    train: Sequence[Pair]
    validation: Sequence[Pair]
    prompt: Prompt
    explained: bool = False

    @property
    def digest(self) -> str:
        """Hash of everything that decides what is trained on."""
        digest = blake2b(repr((self.prompt.name, self.prompt.template, self.explained)).encode(), digest_size=16)
        for part in (self.train, self.validation):
            digest.update(b"\1")
            for pair in part:
                digest.update(repr((pair.content, pair.prompt, pair.label, pair.explanation)).encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class MatchingDocuments:
    """What is trained and validated on, and the renderer that made it."""

    renderer: ChatRenderer
    train: list[Document]
    validation: list[Document]

    @classmethod
    def of(cls, data: MatchingData, spec: StageSpec) -> MatchingDocuments:
        """Validation pairs are those that fit into ``validation_tokens``, drawn by the seed. Their answers have no
        explanations: the loss is that of Yes and No. Raises UserError on pairs that cannot be laid out, or are too long
        for the model."""
        renderer, settings = spec.renderer(), spec.settings
        documents = pair_documents(data.train, renderer, data.prompt, explained=data.explained)
        held_out = pair_documents(data.validation, renderer, data.prompt)
        require_room([*documents, *held_out], spec.model.positions)
        order = np.random.default_rng(settings.seed).permutation(len(held_out))
        taken = np.cumsum([len(held_out[index]) for index in order]) <= settings.validation_tokens
        chosen = [held_out[index] for index, fits in zip(order, taken, strict=True) if fits]
        return cls(renderer, documents, chosen or held_out[:1])


def read_data(
    path: Path, validation: Path | None, prompt: Prompt, console: Console, *, explained: bool = False
) -> MatchingData:
    """Return the pairs to train and to validate on: the parts of the folder ``path``, or the file ``path``, and
    ``validation``, a file, if it is given. Say what was read. Raises UserError."""
    train_file = read_part(path, "train")
    held_out: PairFile | None = read_pairs(validation) if validation else None
    if held_out is None and path.is_dir() and find_part(path, "validation"):
        held_out = read_part(path, "validation")
    for name, file in (("train", train_file), ("validation", held_out)):
        if file is None:
            say(console, f"{name}: none, the last weights are kept")
            continue
        say(console, f"{name}: {counts_text(file.counts)}, {file.path}")
        for note in file.notes():
            say(console, f"{name}: {note}")
    held = held_out.pairs if held_out else []
    known = {pair.content for pair in train_file.pairs}
    if shared := sum(pair.content in known for pair in held):
        say(console, f"validation: {shared:,} of its pairs are trained on, too")
    return MatchingData(train_file.pairs, held, prompt, explained)


def counts_text(counts: Counts) -> str:
    return f"{counts.pairs:,} pairs, {counts.positives:,} positive, {counts.negatives:,} negative"


def train_matching(
    config: StudyConfig, data: MatchingData, folder: Path, console: Console, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Train the model that ``config`` names on ``data``. Return the summary, which is written to
    ``folder/summary.json``; what is trained is in ``folder/adapter``.

    An interrupted training in ``folder`` continues. Raises UserError on input that cannot be used, Stopped if a signal
    ends it.
    """
    prepare_process(config, options)
    folder = distributed.agreed(folder)
    if (folder / SUMMARY).exists():
        raise UserError("training is already finished here", where=folder, hint="Choose another --out to train again.")
    if (folder / CONFIG).exists():
        check_same_settings(config, folder)
    heading(console, "1/2", "Base model")
    model = StudyModel.of(config, "real", console)
    spec = StageSpec.of(config, STAGE, model)
    check_loggers(config.training)
    spec.check()
    documents = MatchingDocuments.of(data, spec)
    tokens = sum(map(len, documents.train))
    spec.require_limit(TokenStore.of(documents.train))
    begin(config, folder, data.digest)
    heading(console, "2/2", f"Fine-tune by {spec.settings.method}")
    say(console, f"{len(documents.train):,} pairs, {tokens:,} tokens an epoch; prompt {data.prompt.name}")
    decoder, summary = train_matcher(spec, documents, folder, console)
    summary |= {"task": "entity-matching", "prompt": data.prompt.name, "explanations": data.explained}
    summary |= {"base": config.model.path, "base_fingerprint": decoder.fingerprint, "pairs": data.digest}
    for part, pairs in (("train", data.train), ("validation", data.validation)):
        counts = Counts.of(pairs)
        summary[f"{part}_pairs"] = {"pairs": counts.pairs, "positives": counts.positives}
    if distributed.rank() == 0:
        write_atomic(folder / SUMMARY, json.dumps(seal(summary), indent=2) + "\n")
    distributed.leave()
    return summary


def train_matcher(
    spec: StageSpec, documents: MatchingDocuments, folder: Path, console: Console
) -> tuple[Decoder, dict[str, Any]]:
    """Train a new adapter over the base of ``spec`` and save it to ``folder/adapter``; checkpoints and metrics are in
    ``folder/training``. Return the decoder, which has the best adapter, and the result of the stage."""
    assert spec.model.folder is not None
    base, renderer = str(spec.model.folder.resolve()), documents.renderer
    layout = format_files(renderer.format, [renderer.answer_stop_id], NO_SYSTEM)
    provenance: dict[str, Any] = {"task": "entity-matching"}
    with MemoryMeter(spec.device) as meter:
        levels = spec.levels(TokenStore.of(documents.train), console)
        decoder = spec.decoder(console)
        if spec.settings.method == "lora" and not spec.settings.lora.modules_to_save:
            warn_of_weak_stop(STAGE, decoder, renderer, console)
        stage = Stage(
            name=STAGE,
            decoder=decoder,
            documents=documents.train,
            validation=documents.validation,
            settings=spec.settings,
            folder=folder / "training" / STAGE,
            runtime=spec.runtime,
            files=AdapterFiles(decoder, base=base, provenance=provenance, extra_files=layout),
            levels=levels,
        )
        result, values = train(stage, console, meter)
    result.parameters = weight_memory(decoder).parameters
    result.share_of_corpus = min(1.0, result.tokens / sum(map(len, documents.train)))
    summary = result.as_dict()
    if distributed.rank() == 0:
        extra: dict[str, str | bytes] = {
            **layout,
            **tokenizer_files(spec.model.folder, renderer.tokenizer),
            "README.md": _card(spec, base),
        }
        save_adapter(
            decoder, folder / ADAPTER, base=base, provenance=provenance | {"training": summary}, extra_files=extra,
            values=values,
        )  # fmt: skip
    say(console, f"{validation_text(result)} after {result.tokens:,} tokens")
    return decoder, summary


def _card(spec: StageSpec, base: str) -> str:
    method = method_named(spec.settings.method)
    text = f"`{base}`, fine-tuned ({method.name}) to say whether two records describe the same thing"
    library = "peft" if method.name == "lora" else "transformers" if method.trains_base else "cbtrain"
    metadata = {"library_name": library, "pipeline_tag": "text-generation", "tags": ["cbtrain", "entity-matching"]}
    return model_card(base=base, name=f"Entity matching on {public_name(base)}", text=text, metadata=metadata)
