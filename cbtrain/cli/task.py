"""``cbtrain task entity-matching generate | check | base | train | evaluate``: a task with an exact measure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli.exit_codes import DONE, FOUND
from cbtrain.cli.parser import (
    Commands,
    Parser,
    add_command,
    add_settings,
    continued_by,
    leading_console,
    options_of,
)
from cbtrain.errors import UserError
from cbtrain.tasks.entity_matching.generate import HARD, PAIRS, POSITIVES
from cbtrain.tasks.entity_matching.prompts import AS_IN_FILE, DEFAULT, EVALUATION, PROMPTS

if TYPE_CHECKING:
    from cbtrain.tasks.entity_matching.pair import Counts
    from cbtrain.tasks.entity_matching.prompts import Prompt

ALL = "all"
"""In place of a prompt in an evaluation: the four published ones."""

EXAMPLE = "therapist.learning_rate=1e-3"


def add(commands: Commands) -> None:
    """Add ``task`` and its sub-commands."""
    text = "tasks with an exact measure, on which methods of fine-tuning can be compared"
    tasks = add_command(commands, "task", _generate, text).add_commands(metavar="TASK", required=True)
    text = "do two records describe the same product? Yes or No, measured by F1"
    matching = add_command(tasks, "entity-matching", _generate, text, "See docs/tasks.md.")
    kinds = matching.add_commands(metavar="COMMAND", required=True)
    _add_generate(kinds)
    checked = add_command(kinds, "check", _check, "what is in a file or a folder of pairs, and what cannot be used")
    checked.add_argument("path", type=Path, metavar="PATH", help="a file of pairs as it lies, or a folder of parts")
    base = add_command(kinds, "base", _base, "teach a small base model to read invented products, on a CPU")
    base.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="model folder to make")
    base.add_argument("--seed", type=int, default=0)
    add_settings(base, example="base.token_budget=500000")
    _add_train(kinds)
    _add_evaluate(kinds)


def _add_generate(kinds: Commands) -> None:
    generate = add_command(
        kinds, "generate", _generate, "write pairs of invented products, in three parts that share no product"
    )
    generate.add_argument("folder", type=Path, metavar="DIR", help="folder to make")
    generate.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"pairs in all (default: {PAIRS:,})")
    generate.add_argument("--seed", type=int, default=0)
    text = f"share of pairs that match (default: {POSITIVES:g})"
    generate.add_argument("--positives", type=float, default=POSITIVES, metavar="SHARE", help=text)
    text = f"share of hard negatives among the negatives (default: {HARD:g})"
    generate.add_argument("--hard", type=float, default=HARD, metavar="SHARE", help=text)


def _add_train(kinds: Commands) -> None:
    train = add_command(
        kinds,
        "train",
        _train,
        "fine-tune a model on pairs, by any method",
        "Settings are those of a study's therapist: therapist.method, therapist.learning_rate, …",
    )
    _add_data(train)
    train.add_argument("--validation", type=Path, metavar="FILE", help="pairs to validate on, if DIR is a file")
    train.add_argument("--prompt", default=DEFAULT, help=f"{_names((*PROMPTS, AS_IN_FILE))} (default: {DEFAULT})")
    train.add_argument("--explanations", action="store_true", help="train the explanations after Yes and No as well")
    train.add_argument("--out", type=Path, help="run folder to make, or that of a training that was interrupted")


def _add_evaluate(kinds: Commands) -> None:
    evaluate = add_command(kinds, "evaluate", _evaluate, "ask a model about pairs, and score its answers")
    _add_data(evaluate)
    evaluate.add_argument("--adapter", type=Path, metavar="FOLDER", help="what a training has made (RUN/adapter)")
    evaluate.add_argument("--part", default="test", choices=["train", "validation", "test"])
    text = f"{_names((*PROMPTS, AS_IN_FILE))}; {ALL}: the four of evaluation (default: {DEFAULT})"
    evaluate.add_argument("--prompt", default=DEFAULT, help=text)
    evaluate.add_argument("--force", action="store_true", help="take an adapter of another base, too")
    evaluate.add_argument("--out", type=Path, help="folder for answers and scores; an interrupted evaluation continues")


def _add_data(parser: Parser) -> None:
    parser.add_argument("path", type=Path, metavar="DIR", help="folder of parts, or one file of pairs as it lies")
    parser.add_argument("--base", required=True, metavar="MODEL", help="base model: a folder or a hub id")
    parser.add_argument("--config", help="YAML file, or the name of a shipped config")
    add_settings(parser, example=EXAMPLE)


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _generate(parsed: argparse.Namespace) -> None:
    from cbtrain.tasks.entity_matching.folder import write_parts
    from cbtrain.tasks.entity_matching.generate import generate_pairs

    settings = {"pairs": parsed.pairs, "seed": parsed.seed, "positives": parsed.positives, "hard": parsed.hard}
    parts = generate_pairs(parsed.pairs, parsed.seed, positives=parsed.positives, hard=parsed.hard)
    manifest = write_parts(parts, parsed.folder, settings)
    for name, entry in manifest["files"].items():
        print(f"{name}: {entry['pairs']:,} pairs, {entry['positives']:,} positive, {entry['negatives']:,} negative")
    print(f"\npairs: {parsed.folder}\nnext: cbtrain task entity-matching train {parsed.folder} --base MODEL")


def _check(parsed: argparse.Namespace) -> int:
    from cbtrain.tasks.entity_matching.folder import ALSO, changed_files, find_part, shared_pairs
    from cbtrain.tasks.entity_matching.public_files import compared_with_public
    from cbtrain.tasks.entity_matching.reading import read_pairs

    path, problems = parsed.path, 0
    files = [path] if path.is_file() else [file for part in ALSO if (file := find_part(path, part))]
    if not files:
        names = ", ".join(name for part in ALSO.values() for name in part)
        raise UserError("no file of pairs is here", where=path, hint=f"Name one, or call them {names}.")
    parts = {}
    for file in files:
        parts[file.name] = found = read_pairs(file)
        print(f"{file}: {found.rows:,} rows, {_counted(found.counts)}")
        for note in found.notes():
            print(f"  {note}")
        problems += len(found.odd) + len(found.contradictory)
        if public := compared_with_public(file, found.rows, found.counts.positives):
            print(f"  {public}")
    for line in shared_pairs(parts):
        print(f"  {line}")
        problems += 1
    for line in changed_files(path) if path.is_dir() else ():
        print(f"  {line}")
        problems += 1
    return FOUND if problems else DONE


def _counted(counts: Counts) -> str:
    return f"{counts.positives:,} positive, {counts.negatives:,} negative"


def _base(parsed: argparse.Namespace) -> None:
    from cbtrain.console import plain
    from cbtrain.study.entity_matching.small_base import make_small_base

    console = leading_console()
    with continued_by(parsed.command_line, "--out", parsed.out):
        make_small_base(parsed.out, parsed.seed, console, parsed.settings)
    plain(console, f"\nbase: {parsed.out}\nnext: cbtrain task entity-matching train DIR --base {parsed.out}")


def _train(parsed: argparse.Namespace) -> None:
    from cbtrain.console import plain
    from cbtrain.study.entity_matching.settings import matching_config
    from cbtrain.study.entity_matching.train import ADAPTER, read_data, train_matching
    from cbtrain.study.run_folder import begun_settings, new_run_folder
    from cbtrain.tasks.entity_matching.prompts import Prompt

    folder = parsed.out or new_run_folder("entity-matching")
    prompt = Prompt.named(parsed.prompt)
    config = matching_config(parsed.base, parsed.config, parsed.settings, begun_settings(folder))
    console = leading_console()
    data = read_data(parsed.path, parsed.validation, prompt, console, explained=parsed.explanations)
    with continued_by(parsed.command_line, "--out", folder):
        train_matching(config, data, folder, console, options_of(parsed))
    evaluate = f"cbtrain task entity-matching evaluate {parsed.path} --base {parsed.base} --adapter {folder / ADAPTER}"
    plain(console, f"\ntrained: {folder}\nnext: {evaluate}")


def _evaluate(parsed: argparse.Namespace) -> None:
    from cbtrain.console import plain
    from cbtrain.study.entity_matching.evaluation_run import Evaluation, evaluate_run, scores_table
    from cbtrain.study.entity_matching.settings import matching_config
    from cbtrain.study.run_folder import new_run_folder
    from cbtrain.tasks.entity_matching.folder import read_part

    prompts = _prompts(parsed.prompt)
    config = matching_config(parsed.base, parsed.config, parsed.settings)
    out, console = parsed.out or new_run_folder("entity-matching-scores"), leading_console()
    file = read_part(parsed.path, parsed.part)
    for note in file.notes():
        plain(console, f"{file.path}: {note}")
    source = {"file": str(file.path)}
    evaluation = Evaluation(file.pairs, prompts, source, parsed.adapter, parsed.force)
    with continued_by(parsed.command_line, "--out", out):
        scores = evaluate_run(config, evaluation, out, console)
    scores_table(scores, console)
    plain(console, f"\nscores: {out}")


def _prompts(name: str) -> list[Prompt]:
    from cbtrain.tasks.entity_matching.prompts import Prompt

    return [Prompt.named(each) for each in (EVALUATION if name == ALL else (name,))]
