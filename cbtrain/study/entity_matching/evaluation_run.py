"""Evaluate a model folder and an adapter on pairs, in a folder in which an interrupted evaluation continues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cbtrain.config.schema import StudyConfig
from cbtrain.console import loading_bar, table_of
from cbtrain.environment import pick_device
from cbtrain.errors import UserError
from cbtrain.files import file_digest, seal, write_atomic
from cbtrain.generation.voice import Voice
from cbtrain.journal import Journal, is_count, is_section, is_text, read
from cbtrain.model.adapters.methods import load_adapter, settings_file
from cbtrain.model.architecture import read_architecture
from cbtrain.model.weights.hub import resolve_model
from cbtrain.model.weights.loading import load_configured
from cbtrain.study.entity_matching.evaluate import BLOCK, Asked
from cbtrain.study.pipeline import set_up
from cbtrain.tasks.entity_matching.pair import Pair
from cbtrain.tasks.entity_matching.prompts import Prompt
from cbtrain.tasks.entity_matching.scoring import MatchingScores, parse_answer, score

ANSWERS, SCORES = "answers.jsonl", "scores.json"

BEGUN, ANSWER = "begun", "answer"
SHAPES = {
    BEGUN: {"identity": is_section},
    ANSWER: {
        "prompt": is_text,
        "place": is_count,
        "pair": is_text,
        "label": is_count,
        "answer": is_text,
        "parsed": lambda value: value in (-1, 0, 1),
    },
}
"""Records of :data:`ANSWERS`: one that says what is evaluated, then one for each answer."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is to be evaluated: ``pairs`` of ``source`` (path and part, for the record) by each of ``prompts``, the
    adapter in ``adapter`` (None: the base alone); ``force``: also one of another base."""

    pairs: Sequence[Pair]
    prompts: Sequence[Prompt]
    source: Mapping[str, str]
    adapter: Path | None = None
    force: bool = False

    def identity(self, asked: Asked) -> dict[str, Any]:
        """Return all that decides the answers of ``asked``, by which a begun evaluation is known."""
        pairs = blake2b(digest_size=16)
        for pair in self.pairs:
            pairs.update(repr((pair.id, pair.content, pair.prompt, pair.label)).encode())
        files = [settings_file(self.adapter), *sorted(self.adapter.glob("*.safetensors"))] if self.adapter else []
        layout = (asked.renderer.format, sorted(asked.stop_ids | asked.renderer.stop_ids))
        return {
            "base": asked.decoder.fingerprint or "",
            "weights": str(asked.decoder.format),
            "chat": blake2b(repr(layout).encode(), digest_size=16).hexdigest(),
            "adapter": [file_digest(file) for file in files],
            "prompts": [prompt.name for prompt in self.prompts],
            "pairs": pairs.hexdigest(),
        }


def evaluate_run(config: StudyConfig, evaluation: Evaluation, out: Path, console: Console) -> dict[str, MatchingScores]:
    """Ask the model that ``config`` names, and return the scores by prompt. Answers are in ``out/answers.jsonl``, each
    on disk before more are asked for; scores in ``out/scores.json``.

    An interrupted evaluation in ``out`` continues. Raises UserError on files and pairs that cannot be used, and if
    something else was evaluated there.
    """
    set_up(config)
    asked = open_model(config, evaluation, console)
    out.mkdir(parents=True, exist_ok=True)
    with Journal(out / ANSWERS) as journal:
        answers = _begun(out / ANSWERS, journal, evaluation, evaluation.identity(asked))
        for prompt in evaluation.prompts:
            _ask(asked, evaluation.pairs, prompt, answers[prompt.name], journal, console)
    labels = [pair.label for pair in evaluation.pairs]
    scores = {name: score(labels, texts) for name, texts in answers.items()}
    facts = {
        "task": "entity-matching",
        "base": config.model.path,
        "adapter": str(evaluation.adapter) if evaluation.adapter else None,
        **evaluation.source,
        **evaluation.identity(asked),
    }
    content = facts | {"scores": {name: result.as_dict() for name, result in scores.items()}}
    write_atomic(out / SCORES, json.dumps(seal(content), indent=2) + "\n")
    return scores


def open_model(config: StudyConfig, evaluation: Evaluation, console: Console) -> Asked:
    """Return the model that ``evaluation`` is about, ready to answer. Raises UserError on files that cannot be used."""
    assert config.model.path is not None
    device, folder = pick_device(config.model.device), resolve_model(config.model.path)
    voice = Voice.of(folder, evaluation.adapter, read_architecture(folder).vocabulary, config.tokens.format)
    for note in voice.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    with loading_bar(console) as progress:
        decoder = load_configured(config.model, str(folder), device, progress)
    if evaluation.adapter:
        load_adapter(decoder, evaluation.adapter, force=evaluation.force)
    return Asked(decoder.eval(), voice.renderer, voice.stop_ids)


def _begun(path: Path, journal: Journal, evaluation: Evaluation, identity: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the answers by prompt that are there already. Raises UserError if they are those of something else."""
    answers: dict[str, list[str]] = {prompt.name: [] for prompt in evaluation.prompts}
    records = list(read(path, SHAPES))
    begun = next((record["identity"] for record in records if record["kind"] == BEGUN), None)
    if begun is None:
        journal.append(BEGUN, identity=identity)
        return answers
    differs = [name for name in identity if begun.get(name) != identity[name]]
    if differs:
        problem = f"an evaluation with other {' and '.join(differs)} is in this folder"
        raise UserError(problem, where=path.parent, hint="Choose another --out.")
    for record in records:
        if record["kind"] == ANSWER and record["place"] == len(answers[record["prompt"]]):
            answers[record["prompt"]].append(record["answer"])
    return answers


def _ask(
    asked: Asked, pairs: Sequence[Pair], prompt: Prompt, answers: list[str], journal: Journal, console: Console
) -> None:
    """Add what is missing to ``answers``, and to the ``journal``."""
    columns = (
        TextColumn(prompt.name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(pairs), completed=len(answers))
        rest = pairs[len(answers) :]
        for block in asked.answers(rest, prompt) if rest else ():
            for place, answer in enumerate(block, len(answers)):
                pair = pairs[place]
                parsed = parse_answer(answer)
                fields = {"pair": pair.id, "label": pair.label, "answer": answer, "parsed": parsed}
                journal.append(ANSWER, sync=False, prompt=prompt.name, place=place, **fields)
            journal.sync()
            answers += block
            progress.update(task, completed=len(answers))
            if not console.is_terminal and len(pairs) > BLOCK:
                text = f"{prompt.name}: {len(answers):,} of {len(pairs):,} pairs"
                console.print(text, highlight=False, markup=False)


def scores_table(scores: Mapping[str, MatchingScores], console: Console) -> None:
    """Print a row for each prompt, and of several the mean: never the best, which would be chosen by the test set."""
    first = next(iter(scores.values()))
    text = f"{first.pairs:,} pairs, {first.positives:,} of them match"
    console.print(text, highlight=False, markup=False)
    table = table_of("prompt", "F1", "95 %", "prec.", "recall", "acc.", "unparsed")
    for name, result in scores.items():
        table.add_row(
            name,
            f"{result.f1:.3f}",
            f"{result.f1_low:.3f}–{result.f1_high:.3f}",
            f"{result.precision:.3f}",
            f"{result.recall:.3f}",
            f"{result.accuracy:.3f}",
            f"{result.unparsed:,}",
        )
    console.print(table)
    if len(scores) > 1:
        values = [result.f1 for result in scores.values()]
        text = f"F1 over {len(values)} prompts: mean {fmean(values):.3f}, SD {stdev(values):.3f}"
        console.print(text, highlight=False, markup=False)
    if any(result.unparsed for result in scores.values()):
        text = "Unparsed answers, with neither yes nor no, count as No in F1 and as wrong in accuracy."
        console.print(text, highlight=False, markup=False)
