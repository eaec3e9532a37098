"""The memory that a sweep needs, predicted before weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cbtrain.errors import UserError
from cbtrain.study.sweep.prepare import PreparedRun
from cbtrain.training.planning.fitting import worst_pack
from cbtrain.training.planning.machine import this_machine
from cbtrain.training.planning.memory_plan import predict_memory
from cbtrain.training.planning.meta_model import meta_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.static_memory import predict_static_memory
from cbtrain.training.planning.workload import PackShape, Workload


@dataclass(frozen=True, slots=True)
class SweepMemory:
    """Bytes on one device: ``one`` is the peak of the run that needs most, ``others`` what is kept of all other ones
    meanwhile (adapter, optimizer, copies of the best)."""

    one: int
    others: int

    @property
    def total(self) -> int:
        return self.one + self.others


def predicted_memory(
    runs: Sequence[PreparedRun], at_once: int | None = None, *, level: str | None = None
) -> SweepMemory:
    """Return the memory of ``runs``, ``at_once`` of them together (default: all), on one rank: the base once, what each
    keeps, and the activations of one, at their own level of recomputation or at ``level``. Runs of like settings are
    traced once. Raises UserError as :meth:`cbtrain.study.stages.StageSpec.scenario`."""
    found: dict[str, tuple[int, int]] = {}
    needs = []
    for run in runs:
        scenario, settings = run.spec.scenario(), run.spec.settings
        if level is not None:
            scenario = replace(scenario, activation_checkpointing=level)
        packs = Workload.of(run.dataset.train.documents, settings.pack_tokens).packs()
        shape = worst_pack(scenario, packs, scenario.activation_checkpointing)
        key = repr((scenario, shape))
        if key not in found:
            found[key] = _need(scenario, shape)
        needs.append(found[key])
    size = at_once or len(needs)
    return max((_together(needs[first : first + size]) for first in range(0, len(needs), size)), key=_total)


def kept_beside(runs: Sequence[PreparedRun]) -> dict[str, int]:
    """Return by name the bytes that all other of ``runs`` keep while a run makes a step. Raises UserError as
    :func:`predicted_memory`."""
    kept = {run.name: _kept(run.spec.scenario()) for run in runs}
    return {name: sum(kept.values()) - own for name, own in kept.items()}


def require_memory(runs: Sequence[PreparedRun], at_once: int | None) -> None:
    """Raise UserError if ``runs`` need more than their ``training.memory_limit`` together, even where their layers
    compute everything again, or one needs more at the level that is set for it."""
    limit = runs[0].config.training.memory_limit if runs else None
    if limit is None:
        return
    machine = this_machine(runs[0].spec.device, limit)
    least = predicted_memory(runs, at_once, level="full").total
    if not machine.fits(least):
        problem = f"{len(runs)} runs need {(least + machine.reserve) / 1e9:.2f} GB at least, more than {limit:g} GB"
        hint = "Raise the limit, or train fewer runs at once (--at-once)."
        raise UserError(problem, where="training.memory_limit", hint=hint)
    for run in runs:
        if run.spec.settings.activation_checkpointing != "auto":
            try:
                run.spec.require_limit(run.dataset.train.documents)
            except UserError as error:
                raise UserError(error.what, where=f"run {run.name}, {error.where}", hint=error.hint) from None


def _need(scenario: Scenario, shape: PackShape) -> tuple[int, int]:
    """Return the peak of a run alone, and what stays of it while another one steps."""
    return predict_memory(scenario, shape).total, _kept(scenario)


def _kept(scenario: Scenario) -> int:
    """Return what stays of a run while another one steps."""
    static = predict_static_memory(meta_decoder(scenario), scenario)
    return static.adapters + static.optimizer + (static.adapters if scenario.copies else 0)


def _total(memory: SweepMemory) -> int:
    return memory.total


def _together(needs: Sequence[tuple[int, int]]) -> SweepMemory:
    """Return the memory of runs, each with its peak alone and what is kept of it while another one steps."""
    peak, own = max(needs, key=lambda need: need[0] - need[1])  # whose step takes most beyond what stays
    return SweepMemory(peak, sum(kept for _, kept in needs) - own)
