"""Make the tiny base model of a study that names no model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cbtrain.files import atomic_folder, seal, write_atomic
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.model.weights.saving import llama_config, save_decoder
from cbtrain.study.run_files import SUMMARY
from cbtrain.study.stages import StageSpec
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.document import Document
from cbtrain.tokens.plain_text import cut_windows, plain_documents
from cbtrain.tokens.tokenizer import save_tokenizer
from cbtrain.training import distributed
from cbtrain.training.loop import train
from cbtrain.training.result import TrainingResult
from cbtrain.training.stage import Stage
from cbtrain.transcripts.split import Split
from cbtrain.transcripts.types import Course, Session


def make_base_model(spec: StageSpec, split: Split, run: Path, console: Console) -> TrainingResult:
    """Train the small decoder of ``spec`` on the training split. Rank 0 saves it with its tokenizer to ``run/base``.

    The text is plain: passages one after another, with no role named. Fine-tuning then teaches the chat format, the
    therapist's voice and when to stop.
    """
    folder, stage_folder = run / "base", run / "training" / "base"
    settings, tokenizer = spec.settings, spec.model.tokenizer
    documents, share = training_documents(spec, split)
    validation, _ = plain_documents(
        _sessions_of(split.validation), tokenizer, settings.validation_tokens, settings.seed
    )
    decoder = Decoder(spec.architecture)
    initialize(decoder, spec.config.seed)
    stage = Stage(
        name=spec.name,
        decoder=decoder,
        documents=documents,
        validation=validation,
        settings=settings,
        folder=stage_folder,
        runtime=spec.runtime,
        levels=spec.levels(TokenStore.of(documents), console),
    )
    result, _ = train(stage, console)
    result.share_of_corpus = share * min(1.0, result.tokens / sum(map(len, documents)))
    if distributed.rank() == 0:
        with atomic_folder(folder) as temporary:
            model_config = llama_config(
                decoder.architecture,
                bos_id=tokenizer.bos_token_id,
                eos_id=tokenizer.eos_token_id,
                pad_id=tokenizer.pad_token_id,
            )
            save_decoder(decoder, temporary, model_config)
            save_tokenizer(tokenizer, temporary)
        write_atomic(stage_folder / SUMMARY, json.dumps(seal(result.as_dict()), indent=2) + "\n")
    distributed.barrier()  # the others read it next
    return result


def training_documents(spec: StageSpec, split: Split) -> tuple[list[Document], float]:
    """Return the windows of plain text that the base model is trained on, and their share of the training split's
    words."""
    settings = spec.settings
    texts, share = plain_documents(
        _sessions_of(split.train), spec.model.tokenizer, settings.token_budget, settings.seed
    )
    return cut_windows(texts, spec.config.base_window), share


def _sessions_of(courses: Sequence[Course]) -> list[Session]:
    return [session for course in courses for session in course.sessions]
