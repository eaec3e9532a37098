"""Make the tiny base model of a study that names no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.files import atomic_folder, seal, write_atomic
from cbtrain.model.architecture import Architecture
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.model.rope_keys import Rope
from cbtrain.model.weights.saving import llama_config, save_decoder
from cbtrain.study.run_files import SUMMARY
from cbtrain.tokens.document import Document
from cbtrain.tokens.plain_text import cut_windows, plain_documents
from cbtrain.tokens.tokenizer import save_tokenizer, train_tokenizer
from cbtrain.training import distributed
from cbtrain.training.config import RuntimeConfig
from cbtrain.training.loop import train
from cbtrain.training.result import TrainingResult
from cbtrain.training.stage import Stage
from cbtrain.transcripts.split import Split
from cbtrain.transcripts.types import Course, Session

TOKENIZER_CHARACTERS = 4_000_000
"""Text that the tokenizer is trained on, at most: more changes a vocabulary of a few thousand entries little."""

CHARACTERS_PER_ENTRY = 60
"""Text for each vocabulary entry, at least: entries that are hardly ever seen are hardly ever learnt."""

SMALLEST_VOCABULARY = 600


def make_tokenizer(split: Split, config: StudyConfig) -> Any:
    """Return a byte-level BPE tokenizer of the training split's text, with no larger vocabulary than the text fills."""
    texts = _texts(_sessions_of(split.train))
    vocabulary = max(SMALLEST_VOCABULARY, sum(map(len, texts)) // CHARACTERS_PER_ENTRY)
    return train_tokenizer(texts, min(config.tiny.vocabulary, vocabulary), config.tiny.max_positions)


def make_base_model(split: Split, tokenizer: Any, config: StudyConfig, run: Path, console: Console) -> TrainingResult:
    """Train a small decoder on the training split. Rank 0 saves it with ``tokenizer`` to ``run/base``.

    The text is plain: passages one after another, with no role named. Fine-tuning then teaches the chat format, the
    therapist's voice and when to stop.
    """
    folder, metrics = run / "base", run / "training" / "base"
    settings = config.base
    documents, share = training_documents(split, tokenizer, config)
    validation, _ = plain_documents(
        _sessions_of(split.validation), tokenizer, settings.validation_tokens, settings.seed
    )
    decoder = Decoder(tiny_architecture(config, len(tokenizer), tokenizer.eos_token_id))
    initialize(decoder, config.seed)
    runtime = base_runtime(config)
    result, _ = train(Stage("base", decoder, documents, validation, settings, metrics, runtime), console)
    result.share_of_corpus = share * min(1.0, result.tokens / sum(map(len, documents)))
    if distributed.rank() == 0:
        with atomic_folder(folder) as temporary:
            described = llama_config(
                decoder.architecture,
                bos_id=tokenizer.bos_token_id,
                eos_id=tokenizer.eos_token_id,
                pad_id=tokenizer.pad_token_id,
            )
            save_decoder(decoder, temporary, described)
            save_tokenizer(tokenizer, temporary)
        write_atomic(metrics / SUMMARY, json.dumps(seal(result.as_dict()), indent=2) + "\n")
    distributed.barrier()  # the others read it next
    return result


def training_documents(split: Split, tokenizer: Any, config: StudyConfig) -> tuple[list[Document], float]:
    """Return the windows of plain text that the base model is trained on, and their share of the training split."""
    settings = config.base
    texts, share = plain_documents(_sessions_of(split.train), tokenizer, settings.token_budget, settings.seed)
    return cut_windows(texts, config.base_window), share


def base_runtime(config: StudyConfig) -> RuntimeConfig:
    """Return how the base model is trained: by the torch engine, since so small a model is not worth sharding."""
    return config.training.model_copy(update={"engine": "torch"})


def _sessions_of(courses: tuple[Course, ...]) -> list[Session]:
    return [session for course in courses for session in course.sessions]


def _texts(sessions: list[Session]) -> list[str]:
    texts, characters = [], 0
    for session in sessions:
        for turn in session.turns:
            texts.append(turn.text)
            characters += len(turn.text)
        if characters > TOKENIZER_CHARACTERS:
            break
    return texts


def tiny_architecture(config: StudyConfig, vocabulary: int, eos_id: int) -> Architecture:
    """Return the architecture of the tiny base model that ``config`` describes."""
    sizes = config.tiny
    return Architecture(
        name="LlamaForCausalLM",
        vocabulary=vocabulary,
        hidden=sizes.hidden,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.hidden // sizes.heads,
        intermediate=sizes.intermediate,
        max_positions=sizes.max_positions,
        norm_eps=1e-5,
        rope=Rope(theta=10_000.0),
        tied_embeddings=True,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        sliding_window=None,
        eos_ids=(eos_id,),
    )
