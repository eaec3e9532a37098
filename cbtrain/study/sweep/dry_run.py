"""What a sweep would train, without training it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import plain, table_of
from cbtrain.study.pipeline import set_up
from cbtrain.study.sweep.checks import differing
from cbtrain.study.sweep.held_out import comparison_of
from cbtrain.study.sweep.memory import predicted_memory, shares
from cbtrain.study.sweep.options import Options
from cbtrain.study.sweep.prepare import PreparedRun, prepare_runs
from cbtrain.study.sweep.results import comparable, in_words
from cbtrain.training import distributed

WIDE = 80
"""Letters of the settings in which a run differs."""


def print_plan(
    configs: Mapping[str, StudyConfig], file: Path, folder: Path, console: Console, options: Options
) -> None:
    """Read the corpora, and print what each run would be trained on and the memory of all, trained as ``options`` say,
    without loading weights. Raises UserError as :func:`cbtrain.study.sweep.sweep.train_sweep`."""
    set_up(next(iter(configs.values())))
    runs = prepare_runs(configs, folder, str(file), console)
    differs = differing(configs)
    table = table_of("run", "units", "tokens at most", "validation", "speaker", "differs by", numbers=3, words=2)
    table.columns[0].no_wrap = True
    for run in runs:
        train, validation = run.dataset.train, run.dataset.validation
        counts = f"{len(train.units):,}", f"{run.planned_tokens:,}", f"{validation.documents.tokens:,}"
        table.add_row(run.name, *counts, str(run.speaker), in_words(differs[run.name], WIDE))
    console.print(table)
    plain(console, f"{len(runs)} runs over one base, {sum(run.planned_tokens for run in runs):,} tokens at most")
    for _, members in comparable(runs):
        comparison = comparison_of(members)
        if comparison and comparison.common:
            plain(console, f"{members[0].speaker}: {comparison.in_words}")
    _print_memory(runs, console, options)


def _print_memory(runs: Sequence[PreparedRun], console: Console, options: Options) -> None:
    machine = runs[0].spec.machine().share_of(distributed.launched_here())
    with console.status("Predicting memory"):
        ranks = shares(runs, distributed.launched())
        memory = max((predicted_memory(share, options) for share in ranks), key=lambda memory: memory.total)
    what = "one run" if memory.joined == 1 else f"a pass of {memory.joined} runs"
    parts = f"{_gb(memory.one)} for {what}, {_gb(memory.others)} for what the others keep"
    outside = machine.reserve
    plain(console, f"memory: about {_gb(memory.total + outside)} on one rank ({parts}, {_gb(outside)} outside tensors)")
    if machine.fits(memory.total):
        return
    least = max(predicted_memory(share, options, level="full").total for share in ranks)
    if machine.fits(least):
        text = f"to fit into {_gb(machine.memory)}, layers will compute again (at least {_gb(least + outside)})"
        plain(console, text)
    else:
        limited = runs[0].config.training.memory_limit is not None
        there = f"{'training.memory_limit leaves' if limited else f'{machine.name} has'} {_gb(machine.memory)}"
        joint = "leave out --joint, " if options.joint else ""
        hint = f"{joint}set pack_tokens lower, train fewer runs at once (--at-once), or take more ranks"
        plain(console, f"Warning: {_gb(least + outside)} at least, and {there}: {hint}", style="yellow")


def _gb(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
