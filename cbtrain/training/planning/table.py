"""A plan as a table for people, and as a dict for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from cbtrain.model.methods import method_of
from cbtrain.training.memory.meter import MemorySplit
from cbtrain.training.planning.fitting import levels_text
from cbtrain.training.planning.machine import Machine
from cbtrain.training.planning.plan import Alternative, StagePlan

PARTS = {
    "weights": "weights",
    "adapters": "adapt.",
    "gradients": "grad.",
    "optimizer": "optim.",
    "activations": "activ.",
    "workspace": "work",
}
"""The parts of the peak, with the heads of their columns."""

CHECKPOINTING = "activ. chkpt."
"""Head of the column of ``activation_checkpointing``."""

WIDTH = 110
"""Columns of a table that no terminal bounds."""


def print_plan(plan: StagePlan, machine: Machine, console: Console) -> None:
    """Print a table and a sentence of advice."""
    scenario, a = plan.stage.scenario, plan.stage.scenario.architecture
    trained = method_of(scenario.adapter).text
    how = f"{trained} trained, {scenario.format}" if scenario.full else f"weights {scenario.format}"
    console.print(
        f"\n[bold]{plan.stage.name}[/]: {a.layers} layers, hidden {a.hidden:,}, vocabulary {a.vocabulary:,}; {how}; "
        f"attention by {scenario.attention}; {_gb(machine.memory)} GB on {machine.name}, {_gb(machine.reserve)} of it "
        "for what is outside tensors",
        highlight=False,
        soft_wrap=True,
    )
    for note in plan.stage.notes:
        console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(_table(plan))
    hows = dict.fromkeys(alternative.how for alternative in plan.alternatives)
    console.print(
        f"  Time: {'; '.join(hows)}. Memory in {_unit(plan).name}.", highlight=False, markup=False, soft_wrap=True
    )
    if scenario.world > 1:
        console.print(f"  {not_counted(scenario.world)}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"  {plan.stage.name} {plan.advice}", highlight=False, markup=False, soft_wrap=True)


def not_counted(world: int) -> str:
    """Return the sentence about what the times of ``world`` ranks leave out."""
    return (
        f"Communication between the {world} ranks is not counted: with ZeRO-3, or between nodes, it can take most of "
        "the time."
    )


def _table(plan: StagePlan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = ("pack", CHECKPOINTING, "peak", *(PARTS[part] for part in PARTS), "fits", "tokens/s", "epoch")
    for column in columns:
        table.add_column(column, justify="left" if column in (CHECKPOINTING, "fits") else "right", no_wrap=True)
    unit = _unit(plan)
    for alternative in sorted(plan.alternatives, key=lambda a: a.pack_tokens):
        chosen = alternative is plan.configured
        row = [
            f"{alternative.pack_tokens:,}",
            _level(alternative),
            unit.format(alternative.memory.total),
            *(unit.format(getattr(alternative.memory, part)) for part in PARTS),
            "yes" if alternative.fits else "no",
            f"{alternative.tokens_per_second:,.0f}",
            _time(alternative.epoch_seconds),
        ]
        table.add_row(*row, style="bold" if chosen else None)
    return table


def plan_as_dict(plan: StagePlan, machine: Machine) -> dict[str, Any]:
    """Return the plan for JSON: bytes, seconds, tokens a second."""
    scenario, choice = plan.stage.scenario, plan.choice
    return {
        "stage": plan.stage.name,
        "weights": str(scenario.format),
        "attention": scenario.attention,
        "memory": machine.memory,
        "reserve": machine.reserve,
        "tokens_per_epoch": plan.stage.workload.tokens,
        "notes": [*plan.stage.notes, *([not_counted(scenario.world)] if scenario.world > 1 else [])],
        "configured": _alternative(plan.configured),
        "fits": plan.configured.fits,
        "nearest": None if choice is None else _alternative(choice),
        "alternatives": [_alternative(alternative) for alternative in plan.alternatives],
        "advice": plan.advice,
    }


def _alternative(a: Alternative) -> dict[str, Any]:
    return {
        "activation_checkpointing": a.activation_checkpointing,
        "levels": levels_text(a.levels),
        "pack_tokens": a.pack_tokens,
        "peak": a.memory.total,
        "split": _split(a.memory),
        "fits": a.fits,
        "tokens_per_second": round(a.tokens_per_second, 1),
        "epoch_seconds": None if a.epoch_seconds is None else round(a.epoch_seconds, 2),
        "how": a.how,
    }


def _level(a: Alternative) -> str:
    auto = a.activation_checkpointing == "auto"
    return f"auto: {levels_text(a.levels)}" if auto else a.activation_checkpointing


def _split(memory: MemorySplit) -> dict[str, int]:
    return {part: getattr(memory, part) for part in PARTS}


@dataclass(frozen=True, slots=True)
class _Unit:
    name: str
    bytes: float
    digits: int

    def format(self, count: int) -> str:
        return f"{count / self.bytes:,.{self.digits}f}"


def _unit(plan: StagePlan) -> _Unit:
    """Return megabytes for small models, gigabytes for large ones."""
    small = max(a.memory.total for a in plan.alternatives) < 10e9
    return _Unit("MB", 1e6, 0) if small else _Unit("GB", 1e9, 1)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
