"""The memory that a sweep needs, predicted before weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cbtrain.errors import UserError
from cbtrain.model.adapters.lora import LoraAdapter
from cbtrain.study.sweep.options import Options
from cbtrain.study.sweep.prepare import PreparedRun
from cbtrain.study.sweep.ranks import dealt
from cbtrain.training import distributed
from cbtrain.training.joint import joint_obstacle
from cbtrain.training.planning.fitting import Levels, plenty, worst_pack
from cbtrain.training.planning.joint_memory import predict_joint_memory
from cbtrain.training.planning.machine import Machine
from cbtrain.training.planning.memory_plan import predict_memory
from cbtrain.training.planning.meta_model import meta_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.static_memory import predict_static_memory
from cbtrain.training.planning.workload import PackShape


@dataclass(frozen=True, slots=True)
class SweepMemory:
    """Bytes on one device: ``one`` is the peak of the run that needs most, or of a pass for ``joined`` runs; ``others``
    what is kept of all other ones meanwhile (adapter, optimizer, copies of the best)."""

    one: int
    others: int
    joined: int = 1

    @property
    def total(self) -> int:
        return self.one + self.others


@dataclass(frozen=True, slots=True)
class Need:
    """What the memory of one run depends on. ``auto``: memory chooses what its layers compute again; ``obstacle`` says
    why it is not computed with others in one pass, None if it is; ``kept`` bytes stay of it while another one steps."""

    name: str
    scenario: Scenario
    packs: list[PackShape]
    auto: bool
    obstacle: str | None
    kept: int

    @classmethod
    def of(cls, run: PreparedRun, *, joint: bool) -> Need:
        """Raises UserError as :meth:`cbtrain.study.stages.StageSpec.scenario`."""
        scenario = run.spec.scenario()
        decoder = meta_decoder(scenario)
        static = predict_static_memory(decoder, scenario)
        kept = static.adapters + static.optimizer + (static.adapters if scenario.copies else 0)
        obstacle: str | None = "--joint is not given"
        if joint:
            assert isinstance(decoder.adapter, LoraAdapter)  # the runs of a sweep have no other
            obstacle = joint_obstacle(decoder, decoder.adapter, run.spec.settings.pack_tokens)
        packs = run.spec.packs(run.dataset.train.documents)
        return cls(run.name, scenario, packs, run.spec.chooses, obstacle, kept)

    def at(self, level: Levels | None) -> tuple[Scenario, PackShape]:
        """Return the scenario at ``level``, if memory chooses it (None: ``none``), and the pack that needs most."""
        scenario = replace(self.scenario, activation_checkpointing=level) if self.auto and level else self.scenario
        return scenario, worst_pack(scenario, self.packs, scenario.activation_checkpointing)


class Together:
    """Runs whose state is in memory together."""

    def __init__(self, needs: Sequence[Need]) -> None:
        self.needs = list(needs)
        self.joining = [need for need in self.needs if need.obstacle is None]
        if len(self.joining) < 2:
            self.joining = []

    def memory(self, level: Levels | None = None) -> SweepMemory:
        """Return their memory, where memory chooses ``level``. Of runs with like settings the one with the largest pack
        is traced."""
        largest: dict[str, tuple[Scenario, PackShape, int]] = {}
        for need in self.needs:
            scenario, pack = need.at(level)
            _, other, _ = largest.get(repr(scenario), (scenario, pack, need.kept))
            worst = worst_pack(scenario, [other, pack], scenario.activation_checkpointing)
            largest[repr(scenario)] = scenario, worst, need.kept
        peaks = [(predict_memory(scenario, pack).total, own) for scenario, pack, own in largest.values()]
        peak, own = max(peaks, key=lambda one: one[0] - one[1])  # whose step takes most beyond what stays
        kept = sum(need.kept for need in self.needs)
        found = [SweepMemory(peak, kept - own)]
        alike: dict[Levels, list[Need]] = {}
        for need in self.joining:
            alike.setdefault(need.at(level)[0].activation_checkpointing, []).append(need)
        for members in alike.values():
            if len(members) > 1:
                scenarios, packs = zip(*(need.at(level) for need in members), strict=True)
                whole = predict_joint_memory(scenarios, packs).total
                found.append(SweepMemory(whole, kept - sum(need.kept for need in members), len(members)))
        return max(found, key=lambda memory: memory.total)

    def plenty(self, machine: Machine) -> bool:
        """Return whether ``machine`` has so much memory that nobody needs to count."""
        return all(plenty(need.scenario, need.packs, machine, len(self.needs)) for need in self.needs)


def predicted_memory(
    runs: Sequence[PreparedRun], options: Options | None = None, *, level: Levels | None = None
) -> SweepMemory:
    """Return the memory of ``runs`` on one rank, so many of them together as ``options`` say: the base once, what each
    keeps, and the activations of one step or joint pass. Where memory chooses what layers compute again, ``level`` is
    taken (default: nothing). Raises UserError as :meth:`cbtrain.study.stages.StageSpec.scenario`."""
    options = options or Options()
    needs = [Need.of(run, joint=options.joint) for run in runs]
    size = options.at_once or len(needs)
    parts = [Together(needs[first : first + size]) for first in range(0, len(needs), size)]
    return max((part.memory(level) for part in parts), key=lambda memory: memory.total)


def shares(runs: Sequence[PreparedRun], ranks: int) -> list[list[PreparedRun]]:
    """Return the runs of each of ``ranks`` that has any."""
    return [share for share in dealt(runs, ranks) if share]


def require_memory(runs: Sequence[PreparedRun], options: Options) -> None:
    """Raise UserError if ``runs``, dealt out over the ranks, need more than their ``training.memory_limit`` even where
    all layers whose levels memory chooses compute everything again."""
    limit = runs[0].config.training.memory_limit if runs else None
    if limit is None:
        return
    ranks, whole = distributed.launched_here(), runs[0].spec.machine()
    machine = whole.share_of(ranks)
    for run in (run for run in runs if not run.spec.chooses):
        with run.naming_errors():
            run.spec.require_limit(run.dataset.train.documents, machine)
    for share in shares(runs, distributed.world()):
        least = predicted_memory(share, options, level="full").total
        if not machine.fits(least):
            on = f" on each of {ranks} ranks here" if machine.memory < whole.memory else ""
            needed = f"{len(share)} runs need {(least + machine.reserve) / 1e9:.2f} GB at least{on}"
            hint = "Raise the limit, or train fewer runs at once (--at-once)."
            if options.joint:
                hint = "Raise the limit, leave out --joint, or train fewer runs at once (--at-once)."
            problem = f"{needed}, more than {machine.memory / 1e9:.2f} GB"
            raise UserError(problem, where="training.memory_limit", hint=hint)
