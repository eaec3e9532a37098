"""Make a small base model that can read invented products and compare them, from nothing, in minutes on a CPU.

A random base cannot be adapted by a few numbers beside its weights: nothing in it compares words. This one has
learnt to, on goods and brands that are not the task's, by a question of another form. It is for comparing methods, and
knows no language.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cbtrain.config.layers import MergedSettings
from cbtrain.config.schema import StudyConfig
from cbtrain.config.sources import Layer, read_layers
from cbtrain.console import say
from cbtrain.errors import UserError
from cbtrain.files import seal, write_atomic, written_together
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.model.weights.saving import llama_config, save_decoder
from cbtrain.study.entity_matching.settings import TASKS
from cbtrain.study.pipeline import set_up
from cbtrain.study.run_files import SUMMARY
from cbtrain.study.stages import tiny_architecture
from cbtrain.tasks.entity_matching.generate import generate_pairs
from cbtrain.tasks.entity_matching.lessons import Lesson, lessons
from cbtrain.tasks.entity_matching.prompts import PROMPTS
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.dialogue import Message, SpokenTurn
from cbtrain.tokens.document import Document, trimmed
from cbtrain.tokens.loss_mask import Span
from cbtrain.tokens.tokenizer import save_tokenizer, train_word_tokenizer
from cbtrain.training.loop import train
from cbtrain.training.stage import Stage

MOST_LESSONS, HELD_OUT = 500_000, 400
"""Lessons to train on, if the token budget does not end them before, and to validate on."""

HELD_OUT_SEED = 1_000_000
"""Added to the seed for the lessons to validate on."""

SPREAD, OF_EMBEDDINGS = 0.08, 0.04
"""Standard deviation of the first random matrices. The usual 0.02 is meant for wider models; whether this one needs
more was not measured apart."""

OF_LESSONS = "lessons_seed"
"""In the summary of a small base: the seed of what it was taught."""

TOKENIZED = 2000
"""Pairs of the task's goods, and as many of the lessons, by whose words the tokenizer is trained."""


def small_base_config(seed: int, overrides: Sequence[str] = ()) -> StudyConfig:
    """Return the shipped settings with ``seed`` and ``overrides`` (``key=value``). Raises UserError on wrong ones."""
    settings = MergedSettings(StudyConfig)
    for layer in read_layers("small-base", TASKS):
        settings.add(layer)
    settings.add(Layer("--seed", {"seed": seed, "base": {"seed": seed}}))
    settings.override(overrides)
    return settings.validated()


def make_small_base(out: Path, seed: int, console: Console, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Train the small base model of ``seed`` and write it, with its tokenizer, to ``out``. Return the summary, which is
    ``out/training/summary.json``. An interrupted training in ``out`` continues.

    ``overrides`` are settings of ``tiny``, ``base`` and ``training`` over the shipped ones. Raises UserError on
    settings that cannot be used, and if there is a model in ``out``.
    """
    config = small_base_config(seed, overrides)
    set_up(config)
    if (out / "config.json").exists():
        raise UserError("a model is here already", where=out, hint="Choose another --out.")
    tokenizer = small_tokenizer(config)
    renderer = ChatRenderer(tokenizer)
    documents = _documents(seed, config.base.token_budget, renderer)
    # Not tied: answers alone are learnt, which drives the head's other rows into one direction; words that were read by
    # the same rows would no longer differ.
    architecture = replace(tiny_architecture(config, len(tokenizer), tokenizer.eos_token_id), tied_embeddings=False)
    decoder = Decoder(architecture)
    initialize(decoder, seed)
    widen(decoder)
    stage = Stage(
        name="base",
        decoder=decoder,
        documents=documents,
        validation=held_out_lessons(seed, renderer),
        settings=config.base,
        folder=out / "training",
        runtime=config.training,
        groups=[lesson.kind for lesson in _held_out(seed)],
    )
    result, _ = train(stage, console)
    summary = result.as_dict() | {OF_LESSONS: seed}
    with written_together(out) as temporary:
        ids = {"bos_id": tokenizer.bos_token_id, "eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id}
        save_decoder(decoder, temporary, llama_config(decoder.architecture, **ids))
        save_tokenizer(tokenizer, temporary)
    write_atomic(out / "training" / SUMMARY, json.dumps(seal(summary), indent=2) + "\n")
    say(console, f"{result.parameters:,} parameters, {result.tokens:,} tokens, {result.seconds:.0f} s")
    return summary


def lessons_seed(base: Path) -> int | None:
    """Return the seed of the lessons of the model in ``base``; None if it is no small base of the task."""
    try:
        seed = json.loads((base / "training" / SUMMARY).read_text(encoding="utf-8")).get(OF_LESSONS)
    except (OSError, ValueError, AttributeError):
        return None
    return seed if isinstance(seed, int) else None


def _held_out(seed: int) -> list[Lesson]:
    return list(islice(lessons(seed + HELD_OUT_SEED), HELD_OUT))


def held_out_lessons(seed: int, renderer: ChatRenderer) -> list[Document]:
    """Return the lessons on which the base of ``seed`` was validated, with the loss on their answers."""
    return [_document(lesson, f"v{n}", renderer) for n, lesson in enumerate(_held_out(seed))]


def small_tokenizer(config: StudyConfig) -> Any:
    """Return a tokenizer of words in small letters, of the task's goods too: it is not what is compared."""
    pairs = generate_pairs(TOKENIZED, config.seed)["train"]
    texts = [f"{lesson.question} {lesson.answer}" for lesson in islice(lessons(config.seed), TOKENIZED)]
    texts += [title for pair in pairs for title in (pair.left, pair.right)]
    texts += list(PROMPTS.values()) * 50
    return train_word_tokenizer(texts, config.tiny.vocabulary, config.tiny.max_positions)


def _documents(seed: int, budget: int | None, renderer: ChatRenderer) -> list[Document]:
    """Return the documents of the first lessons that fill ``budget`` tokens (None: of all)."""
    documents, tokens = [], 0
    for number, lesson in enumerate(islice(lessons(seed), MOST_LESSONS)):
        documents.append(_document(lesson, str(number), renderer))
        tokens += len(documents[-1])
        if budget is not None and tokens >= budget:
            break
    return documents


@torch.no_grad()
def widen(decoder: Decoder) -> None:
    """Give the random matrices of a new, narrow ``decoder`` the spread that it needs."""
    for name, parameter in decoder.named_parameters():
        if parameter.dim() == 2:
            wanted = OF_EMBEDDINGS if name.startswith("embed_tokens") else SPREAD
            parameter.mul_(wanted / parameter.std())


def _document(lesson: Lesson, name: str, renderer: ChatRenderer) -> Document:
    """Return the chat of ``lesson``, with the loss on what counts in its answer."""
    turn = SpokenTurn(name, 1, tuple(Span(begin, end, 1.0) for begin, end in lesson.counted))
    messages = [Message("user", lesson.question), Message("assistant", lesson.answer, (turn,))]
    rendering = renderer.render(messages, name)
    return trimmed(name, rendering.ids, rendering.loss_weights)
