"""Predict memory and time of a training stage with alternative settings, and choose one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from cbtrain.model.fused.levels import LEVELS, levels_of
from cbtrain.training.config import StageConfig
from cbtrain.training.memory.meter import MemorySplit
from cbtrain.training.planning.fitting import fit_levels, predicted, worst_pack
from cbtrain.training.planning.machine import Machine
from cbtrain.training.planning.meta_model import meta_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.timing import Timing, Trained, estimate_time, flops_of, measure_times
from cbtrain.training.planning.workload import PackShape, Workload

CHOICES = ("auto", *LEVELS)
"""Of ``activation_checkpointing``, in the order in which those that fit are preferred."""

SMALLEST_PACK = 256
"""Smallest pack that is recommended: below it, hardly one turn of a therapist fits."""


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One training stage: ``name`` is its section in the config, ``workload`` what it is fed as configured."""

    name: str
    config: StageConfig
    scenario: Scenario
    workload: Workload
    notes: tuple[str, ...] = ()

    def resized(self, pack_tokens: int) -> Workload:
        """Return the workload in packs of ``pack_tokens``."""
        return self.workload if pack_tokens == self.workload.capacity else self.workload.resized(pack_tokens)

    def with_pack(self, activation_checkpointing: str | tuple[str, ...], pack_tokens: int) -> Scenario:
        """Return the scenario of an alternative. The tokens of a step stay the same, not its number of packs."""
        accumulates = self.config.accumulates(self.scenario.world, pack_tokens)
        return replace(self.scenario, activation_checkpointing=activation_checkpointing, accumulates=accumulates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """``memory`` is the predicted peak of one rank, ``needed`` the bytes of it on one device: on a CPU all ranks share
    the machine. ``tokens_per_second`` is of all ranks together, over an epoch that takes ``epoch_seconds`` (None if
    nothing is known of the documents). ``how`` says where the time comes from. ``activation_checkpointing`` is the
    setting, ``levels`` what it comes to in the layers."""

    activation_checkpointing: str
    levels: str | tuple[str, ...]
    pack_tokens: int
    memory: MemorySplit
    needed: int
    fits: bool
    tokens_per_second: float
    epoch_seconds: float | None
    how: str


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The plan of one stage. ``configured`` is one of ``alternatives``; ``choice`` the nearest that fits, or None."""

    stage: PlannedStage
    alternatives: list[Alternative]
    configured: Alternative
    choice: Alternative | None
    advice: str


def plan_stage(stage: PlannedStage, machine: Machine, device: torch.device, tell: Callable[[str], None]) -> StagePlan:
    """Return the plan of ``stage`` with every alternative. ``tell(text)`` reports progress. Raises UserError as the
    parts do."""
    wanted, level = stage.config.pack_tokens, stage.config.activation_checkpointing
    clock, memory = _Clock(stage, machine, device, tell), _Memory(stage, machine)
    alternatives = [
        _alternative(stage, machine, clock, memory, (other, tokens))
        for tokens in (wanted, wanted // 2, 2 * wanted)
        if tokens == wanted or (tokens >= SMALLEST_PACK and stage.workload.changes(tokens))
        for other in (*(["auto"] if level == "auto" else []), *LEVELS)
    ]
    configured = next(a for a in alternatives if a.pack_tokens == wanted and a.activation_checkpointing == level)
    choice = configured if configured.fits else _nearest(alternatives, wanted)
    if choice is None and stage.workload.changes(wanted // 2):
        for smaller in _smaller(wanted // 4):
            alternatives.append(_alternative(stage, machine, clock, memory, ("full", smaller)))
            if alternatives[-1].fits:
                choice = alternatives[-1]
                break
    return StagePlan(stage, alternatives, configured, choice, _advice(stage, machine, configured, choice, alternatives))


def _alternative(
    stage: PlannedStage, machine: Machine, clock: _Clock, memories: _Memory, setting: tuple[str, int]
) -> Alternative:
    level, pack_tokens = setting
    workload = stage.resized(pack_tokens)
    packs, levels = workload.packs(), memories.levels(level, pack_tokens)
    memory, needed = memories.split(levels, pack_tokens), memories.needed(levels, pack_tokens)
    speed, epoch, how = clock.speed(stage.with_pack(levels, pack_tokens), packs)
    seconds = epoch if workload.lengths else None
    return Alternative(
        activation_checkpointing=level,
        levels=levels,
        pack_tokens=pack_tokens,
        memory=memory,
        needed=needed,
        fits=machine.fits(needed),
        tokens_per_second=speed,
        epoch_seconds=seconds,
        how=how,
    )


class _Memory:
    """Predicts the memory of alternatives, each once."""

    def __init__(self, stage: PlannedStage, machine: Machine) -> None:
        self.stage, self.machine = stage, machine
        self.known: dict[tuple[str | tuple[str, ...], int], MemorySplit] = {}

    def levels(self, level: str, pack_tokens: int) -> str | tuple[str, ...]:
        """Return what ``level`` comes to in the layers."""
        if level != "auto":
            return level
        scenario, packs = self.stage.with_pack("none", pack_tokens), self.stage.resized(pack_tokens).packs()
        return fit_levels(scenario, packs, self.machine, partial(self.needed, pack_tokens=pack_tokens)).levels

    def needed(self, levels: str | tuple[str, ...], pack_tokens: int) -> int:
        """Return the bytes on one device."""
        return self.split(levels, pack_tokens).total * self.machine.shared_by(self.stage.scenario.world)

    def split(self, levels: str | tuple[str, ...], pack_tokens: int) -> MemorySplit:
        key = levels, pack_tokens
        if key not in self.known:
            scenario = self.stage.with_pack(levels, pack_tokens)
            self.known[key] = predicted(scenario, self.stage.resized(pack_tokens).packs(), levels)
        return self.known[key]


class _Clock:
    """Times the configured pack once at each level of activation checkpointing, and scales to other packs by FLOPs."""

    def __init__(
        self, stage: PlannedStage, machine: Machine, device: torch.device, tell: Callable[[str], None]
    ) -> None:
        self.machine, self.device, self.tell, self.name = machine, device, tell, stage.name
        self.stage = stage
        self.trained = Trained.of(meta_decoder(stage.scenario), stage.scenario)
        packs = stage.workload.packs()
        self.shape = worst_pack(stage.scenario, packs, "none")
        self.timings: dict[str, Timing] = {}

    def speed(self, scenario: Scenario, packs: list[PackShape]) -> tuple[float, float, str]:
        """Return tokens per second and seconds for ``packs``, all ranks together, and how they were obtained."""
        timing = self._mixed(scenario)
        once = flops_of(scenario, self.shape, self.trained).hardware
        done = sum(flops_of(scenario, pack, self.trained).hardware for pack in packs)
        per_step = self._packs_per_step(scenario, packs)
        steps = max(1, len(packs) // per_step)
        parallel = 1 if self.machine.kind == "cpu" else scenario.world  # ranks on a CPU share its cores
        seconds = timing.micro_batch * done / once / parallel + timing.step * steps
        return sum(pack.tokens for pack in packs) / seconds, seconds, timing.how

    def _packs_per_step(self, scenario: Scenario, packs: list[PackShape]) -> int:
        config = self.stage.config
        if config.tokens_per_step:
            mean = sum(pack.tokens for pack in packs) / len(packs)
            return max(scenario.world, round(config.tokens_per_step / mean))
        return config.packs_per_step or scenario.world

    def _mixed(self, scenario: Scenario) -> Timing:
        """Return the time of ``scenario``, of its mixture of levels by their shares."""
        levels = levels_of(scenario.activation_checkpointing, scenario.architecture.layers)
        timings = [self._timing(scenario, level) for level in levels]
        micro_batch = sum(timing.micro_batch for timing in timings) / len(timings)
        return replace(timings[0], micro_batch=micro_batch)

    def _timing(self, scenario: Scenario, level: str) -> Timing:
        if not self.timings and not self.machine.gpu:
            self.tell(f"Timing the {self.name}")
            measured = measure_times(scenario, self.shape, self.device)
            self.timings = dict(zip(LEVELS, measured, strict=True))
        if level not in self.timings:
            scenario = replace(scenario, activation_checkpointing=level)
            assert self.machine.gpu
            gpu = self.machine.gpu
            self.timings[level] = estimate_time(scenario, self.shape, self.trained, gpu)
        return self.timings[level]


def _nearest(alternatives: list[Alternative], wanted: int) -> Alternative | None:
    """Return the alternative that fits and changes least: activation checkpointing does not affect results, smaller
    packs may cut documents."""
    fitting = [a for a in alternatives if a.fits and a.pack_tokens <= wanted]
    return min(fitting, key=lambda a: (wanted - a.pack_tokens, CHOICES.index(a.activation_checkpointing)), default=None)


def _smaller(tokens: int) -> Iterator[int]:
    while tokens >= SMALLEST_PACK:
        yield tokens
        tokens //= 2


def _advice(
    stage: PlannedStage,
    machine: Machine,
    configured: Alternative,
    choice: Alternative | None,
    alternatives: list[Alternative],
) -> str:
    def keys(a: Alternative) -> str:
        level = f"{stage.name}.activation_checkpointing={a.activation_checkpointing}"
        return f"{stage.name}.pack_tokens={a.pack_tokens} {level}"

    room = machine.memory - machine.reserve
    if choice is configured:
        text = f"fits with {keys(configured)}: {_gb(room - configured.needed)} GB of {_gb(room)} are left"
        faster = [a for a in alternatives if a.fits and a.pack_tokens == configured.pack_tokens]
        best = max(faster, key=lambda a: a.tokens_per_second)
        if best.tokens_per_second > 1.1 * configured.tokens_per_second:
            gain = best.tokens_per_second / configured.tokens_per_second
            text += f"; {keys(best)} fits too and is {gain:.1f} times as fast"
        return text + "."
    over = _gb(configured.needed - room)
    if choice is not None:
        return f"does not fit: {over} GB too much. The nearest that does: {keys(choice)}."
    smallest = min(alternatives, key=lambda a: a.memory.total)
    remedy = "Take a larger machine or a smaller model"
    heavy = 4 * smallest.memory.weights > smallest.memory.total
    if not heavy and not stage.workload.changes(configured.pack_tokens // 2):
        remedy = "Set tokens.document_tokens lower, or take a larger machine"
    elif heavy and not stage.scenario.full and stage.scenario.format.name != "nf4":
        remedy = "Set model.weights=nf4, or take a larger machine"
    elif stage.scenario.full:
        remedy = f"Set {stage.name}.method=lora, or take a larger machine"
    still = _gb(smallest.needed - room)
    return f"does not fit: {over} GB too much, and with {keys(smallest)} still {still}. {remedy}."


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}" if abs(count) >= 1e9 else f"{count / 1e9:.2f}"
