"""The process of one run: ``python -m cbtrain.study.method_comparison.child train|measure|base PLAN``.

Each run has a process of its own, so that its peak of memory is its own, and a run that dies takes no other with it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from cbtrain.files import seal, write_atomic
from cbtrain.model.decoder import Decoder
from cbtrain.study.child_process import serve_step
from cbtrain.study.entity_matching.evaluate import evaluate_matching
from cbtrain.study.entity_matching.evaluation_run import Evaluation, open_model
from cbtrain.study.entity_matching.small_base import held_out_lessons
from cbtrain.study.entity_matching.train import ADAPTER, MatchingData, train_matching
from cbtrain.study.method_comparison.plan_files import MEASURED, read_plan
from cbtrain.study.method_comparison.run import BESIDE, OF_BASE, RunPlan
from cbtrain.study.method_comparison.runner import JOBS
from cbtrain.study.pipeline import set_up
from cbtrain.tasks.entity_matching.documents import pair_documents
from cbtrain.tasks.entity_matching.folder import read_part
from cbtrain.tasks.entity_matching.pair import Pair
from cbtrain.tasks.entity_matching.prompts import Prompt
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.document import Document
from cbtrain.tokens.general_text import first_tokens, passage_documents, read_passages
from cbtrain.training.forgetting import Forgetting, measure

QUESTIONS, LESSONS, GENERAL = "questions", "base's lessons", "general text"
"""Texts on which is measured what was forgotten."""


def train(file: Path, folder: Path, console: Console) -> None:
    """Train the adapter of the plan in ``file`` in ``folder``, where an interrupted training continues."""
    plan = read_plan(file, RunPlan)
    pairs = Path(plan.pairs)
    trained, held_out = (read_part(pairs, part).pairs for part in ("train", "validation"))
    train_matching(plan.config, MatchingData(trained, held_out, Prompt.named(plan.prompt)), folder, console)
    write_atomic(folder / BESIDE, json.dumps(seal({"jobs": int(os.environ.get(JOBS, "1"))})) + "\n")


def measure_base(file: Path, folder: Path, console: Console) -> None:
    """Ask the base of a plan about the test part, and write its scores beside the runs."""
    plan = read_plan(file, RunPlan)
    config, prompt = plan.config, Prompt.named(plan.prompt)
    set_up(config)
    pairs = chosen(read_part(Path(plan.pairs), "test").pairs, plan.test_pairs)
    asked = open_model(config, Evaluation(pairs, [prompt], {}), console)
    scores = evaluate_matching(asked.decoder, asked.renderer, pairs, prompt)
    write_atomic(folder.parent / OF_BASE, json.dumps(seal({"scores": scores.as_dict()}), indent=2) + "\n")


def measure_run(file: Path, folder: Path, console: Console) -> None:
    """Measure what was trained in ``folder`` on the test part, and write it to ``folder/measured.json``."""
    plan = read_plan(file, RunPlan)
    config, prompt = plan.config, Prompt.named(plan.prompt)
    set_up(config)
    pairs = chosen(read_part(Path(plan.pairs), "test").pairs, plan.test_pairs)
    asked = open_model(config, Evaluation(pairs, [prompt], {}, folder / ADAPTER), console)
    scores = evaluate_matching(asked.decoder, asked.renderer, pairs, prompt)
    answers = pair_documents(pairs, asked.renderer, prompt)
    pack_tokens = config.therapist.pack_tokens
    answered = measure(asked.decoder, answers, pack_tokens)
    found: dict[str, Any] = {
        "scores": scores.as_dict(),
        "answers": described(answered),
        "forgetting": {
            name: described(measure(asked.decoder, documents, pack_tokens))
            for name, documents in untrained(plan, answers, asked.decoder, asked.renderer)
        },
        "bytes": sum(file.stat().st_size for file in (folder / ADAPTER).glob("*.safetensors")),
    }
    write_atomic(folder / MEASURED, json.dumps(seal(found), indent=2) + "\n")


def chosen(pairs: list[Pair], count: int | None) -> list[Pair]:
    """Return ``count`` of ``pairs`` (None: all), the same ones for every run."""
    if count is None or count >= len(pairs):
        return list(pairs)
    places = np.random.default_rng(0).permutation(len(pairs))[:count]
    return [pairs[place] for place in sorted(places)]


def untrained(
    plan: RunPlan, answers: list[Document], decoder: Decoder, renderer: ChatRenderer
) -> list[tuple[str, list[Document]]]:
    """Return by name the texts on which was not trained: the questions about the test part, and the base's lessons or,
    of a base that knows language, the general text that ships."""
    questions = [
        Document(one.name, one.ids, np.where(one.loss_weights > 0, 0.0, 1.0).astype(np.float32)) for one in answers
    ]
    if plan.lessons is not None:
        return [(QUESTIONS, questions), (LESSONS, held_out_lessons(plan.lessons, renderer))]
    positions = decoder.architecture.context
    passages = passage_documents(read_passages(None), renderer.tokenizer, positions, renderer.vocabulary)
    tokens = plan.config.training.forgetting.tokens
    return [(QUESTIONS, questions), (GENERAL, first_tokens(passages, tokens))]


def described(found: Forgetting) -> dict[str, Any]:
    return {
        "tokens": found.tokens,
        "base_perplexity": found.base_perplexity,
        "tuned_perplexity": found.tuned_perplexity,
        "rise": found.rise,
        "kl": found.kl,
    }


if __name__ == "__main__":
    serve_step({"train": train, "measure": measure_run, "base": measure_base})
