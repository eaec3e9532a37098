"""Train the runs of a sweep over one base, and leave each in a folder as ``cbtrain train`` would."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.console import say
from cbtrain.errors import UserError
from cbtrain.model.adapters.in_turn import AdaptersInTurn
from cbtrain.model.decoder import Decoder
from cbtrain.study.anchored import anchored
from cbtrain.study.finetune import PreparedAdapter, deliver_adapter, prepare_adapter, validation_text
from cbtrain.study.forgetting import forgetting_lines
from cbtrain.study.pipeline import finish_run
from cbtrain.study.run_files import STATE
from cbtrain.study.run_folder import finished_stage
from cbtrain.study.sweep.base import base_results
from cbtrain.study.sweep.display import SweepDisplay
from cbtrain.study.sweep.folder import write_note
from cbtrain.study.sweep.levels import choose_levels
from cbtrain.study.sweep.options import Options
from cbtrain.study.sweep.prepare import PreparedRun
from cbtrain.training.engines.engine import State
from cbtrain.training.in_turn import Outcomes, StagesInTurn
from cbtrain.training.memory.meter import MemoryMeter
from cbtrain.training.planning.fitting import Levels
from cbtrain.training.planning.machine import Machine
from cbtrain.training.result import TrainingResult

FAILED = "failed"
"""Key of a run's note: what was wrong."""


class SharedDecoder:
    """The base of a sweep: loaded when it is first needed, once."""

    def __init__(self, run: PreparedRun, console: Console) -> None:
        self.run, self.console = run, console

    @cached_property
    def decoder(self) -> Decoder:
        return self.run.spec.base_decoder(self.console)


def train_runs(
    runs: Sequence[PreparedRun],
    folder: Path,
    shared: SharedDecoder,
    machine: Machine,
    console: Console,
    options: Options,
) -> None:
    """Train those of ``runs`` that are not finished, in turn, as ``options`` say, within the memory of ``machine``. A
    run whose loss stays non-finite is noted as failed in the
    sweep's ``folder``, and the others go on. Raises Stopped if a signal came; the state of all is saved then."""
    waiting = []
    for run in (run for run in runs if not is_finished(run)):
        result = finished_stage(run.stage_folder, run.folder / run.speaker, Console(quiet=True))
        if result is None:
            waiting.append(run)
        else:  # it was ended between its stage and its run
            _finish(run, result)
    if kept := [run.name for run in runs if run not in waiting]:
        say(console, f"finished before, kept: {', '.join(kept)}")
    size = options.at_once or max(len(waiting), 1)
    parts = [(waiting[first : first + size], Told()) for first in range(0, len(waiting), size)]
    levels: dict[str, Levels] = {}
    for part, told in parts:
        levels |= choose_levels(part, machine, told.console, joint=options.joint)
    for part, told in parts:
        _train(part, folder, shared, console, told, levels, joint=options.joint)


def is_finished(run: PreparedRun) -> bool:
    return (run.folder / STATE).exists()


def _finish(run: PreparedRun, result: dict[str, Any]) -> None:
    """Write what is left to write of a run whose stage has ended with ``result``."""
    results = [*base_results(run), result]
    finish_run(run.config, run.folder, run.corpus, results, sum(stage["seconds"] for stage in results))


def _train(
    runs: Sequence[PreparedRun],
    folder: Path,
    shared: SharedDecoder,
    console: Console,
    told: Told,
    levels: Mapping[str, Levels],
    *,
    joint: bool,
) -> None:
    by_name = {run.name: run for run in runs}
    prepared: dict[str, PreparedAdapter] = {}

    def done(name: str, result: TrainingResult, values: State) -> None:
        training = prepared.pop(name)
        _finish(by_name[name], deliver_adapter(training, result, values))
        text = f"{validation_text(result)} after {result.tokens:,} tokens (ended by {result.stopped})"
        for line in (text, *forgetting_lines(result.forgetting)):
            say(console, f"{name}: {line}")

    def failed(name: str, error: UserError) -> None:
        prepared.pop(name)
        write_note(folder, name, **{FAILED: str(error)})
        say(console, f"{name} failed, the others go on: {error}")

    device, runtime = runs[0].spec.device, runs[0].config.training
    with MemoryMeter(device) as meter:
        adapters = AdaptersInTurn(shared.decoder)
        with StagesInTurn(adapters, console, meter, runtime.timeout_minutes, joint=joint) as stages:
            for run in runs:
                settings = run.spec.settings
                adapter = adapters.new(settings.lora, seed=settings.seed)
                base = anchored(run.config).model.path
                arguments = (run.spec, run.dataset, shared.decoder, run.folder)
                prepared[run.name] = prepare_adapter(
                    *arguments, told.console(run.name), base=base, levels=levels[run.name]
                )
                stages.add(run.name, prepared[run.name].stage, adapter)
            for seat in stages.seats:
                if joint and (reason := stages.why_alone(seat)):
                    say(told.console(seat.name), f"computed alone, in spite of --joint: {reason}")
            told.say(console, len(runs))
            display = SweepDisplay(stages.seats, console)
            with display.shown():
                stages.train(Outcomes(done, failed), display.refresh)
        adapters.clear()


@dataclass(slots=True)
class Told:
    """Lines that several runs have to say: the same ones are said once, with the names of the runs."""

    texts: dict[str, io.StringIO] = field(default_factory=dict)

    def console(self, name: str) -> Console:
        """Return a console of run ``name``, whose lines are kept."""
        text = self.texts.setdefault(name, io.StringIO())
        return Console(file=text, force_terminal=False, width=10_000)

    def say(self, console: Console, runs: int) -> None:
        """Print the lines, each with the names of those who said it; with none if all of ``runs`` did."""
        names: dict[str, list[str]] = {}
        for name, text in self.texts.items():
            for line in filter(None, map(str.strip, text.getvalue().splitlines())):
                names.setdefault(line, []).append(name)
        for line, who in names.items():
            say(console, line if len(who) == runs else f"{', '.join(who)}: {line}")
