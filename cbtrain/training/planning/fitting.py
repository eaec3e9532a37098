"""How much each layer must compute again, so that training fits into the memory there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cbtrain.errors import UserError
from cbtrain.model.config import LoraConfig
from cbtrain.model.fused.levels import LEVELS, levels_of, mixtures
from cbtrain.model.head import rows_at_once
from cbtrain.training.memory.meter import MemorySplit
from cbtrain.training.planning.machine import Machine
from cbtrain.training.planning.memory_plan import KERNELS, predict_memory
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.workload import PackShape, largest

MARGIN = 1.05
"""A mixture is chosen if so many times its predicted memory is there: it would fill it to the brim."""

STATE_BYTES = 32
"""Bytes of a trained parameter, its gradient and moments, and copies of them, if each is fp32."""


Levels = str | tuple[str, ...]
"""A level for all layers, or one for each (:data:`cbtrain.model.fused.levels.LEVELS`)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """``levels`` are those of the layers (:data:`cbtrain.model.fused.levels.LEVELS`); ``needed`` the bytes that all
    ranks on one device take with them, None where there is plenty of memory and nobody counted."""

    levels: Levels
    needed: int | None
    fits: bool

    @property
    def text(self) -> str:
        return levels_text(self.levels)


def fit_levels(
    scenario: Scenario,
    packs: Sequence[PackShape],
    machine: Machine,
    count: Callable[[Levels], int] | None = None,
) -> Fit:
    """Return the fastest mixture of levels with which the largest of ``packs`` fits on ``machine``; the smallest one if
    none does. ``count`` returns the bytes that levels need (default: :func:`bytes_needed`)."""
    if count is None and plenty(scenario, packs, machine):
        return Fit("none", None, fits=True)
    choices = [_short(levels) for levels in mixtures(scenario.architecture.layers)]

    def needed(number: int) -> int:
        return count(choices[number]) if count else bytes_needed(scenario, packs, choices[number], machine)

    if machine.fits(round(MARGIN * (least := needed(0)))):
        return Fit("none", least, fits=True)
    fitting, least = len(choices) - 1, needed(len(choices) - 1)
    if not machine.fits(round(MARGIN * least)):
        return Fit("full", least, fits=machine.fits(least))
    too_large = 0  # a later mixture takes no more memory than an earlier one
    while fitting - too_large > 1:
        middle = (fitting + too_large) // 2
        if machine.fits(round(MARGIN * (bytes_ := needed(middle)))):
            fitting, least = middle, bytes_
        else:
            too_large = middle
    return Fit(choices[fitting], least, fits=True)


def bytes_needed(scenario: Scenario, packs: Sequence[PackShape], levels: Levels, machine: Machine) -> int:
    """Return the predicted peak on one device; ranks on a CPU share the machine."""
    return predicted(scenario, packs, levels).total * machine.shared_by(scenario.world)


def predicted(scenario: Scenario, packs: Sequence[PackShape], levels: Levels) -> MemorySplit:
    """Return the predicted peak of one rank at ``levels``, with the pack that needs most."""
    scenario = replace(scenario, activation_checkpointing=levels)
    return predict_memory(scenario, worst_pack(scenario, packs, levels))


def fit_at(
    scenario: Scenario,
    packs: Sequence[PackShape],
    level: str,
    machine: Machine,
    count: Callable[[Levels], int] | None = None,
) -> Fit:
    """Return whether the largest of ``packs`` fits on ``machine`` with ``level`` in all layers; ``count`` as in
    :func:`fit_levels`."""
    needed = count(level) if count else bytes_needed(scenario, packs, level, machine)
    return Fit(level, needed, fits=machine.fits(needed))


def require_fit(fit: Fit, machine: Machine, stage: str) -> None:
    """Raise UserError if ``fit`` does not fit."""
    if fit.fits:
        return
    assert fit.needed is not None
    needed, room = (fit.needed + machine.reserve) / 1e9, machine.memory / 1e9
    least = fit.levels == "full"
    how = "even if every layer is computed again" if least else f"with activation checkpointing {fit.text}"
    problem = f"{stage} needs {needed:.2f} GB {how}, more than {room:.2f} GB"
    change = "" if least else f"set {stage}.activation_checkpointing=auto, "
    hint = f"Raise the limit, {change}lower {stage}.pack_tokens, or look at `cbtrain plan`."
    raise UserError(problem, where="training.memory_limit", hint=hint)


def levels_text(levels: str | Sequence[str]) -> str:
    """Return ``none`` or, of a mixture, ``12 none, 20 mlp``."""
    if isinstance(levels, str):
        return levels
    counts = Counter(levels)
    parts = [f"{counts[level]} {level}" for level in LEVELS if counts[level]]
    return ", ".join(parts) if len(counts) > 1 else levels[0]


def smallest(choices: Sequence[Levels], layers: int) -> Levels:
    """Return which of ``choices`` (of :func:`fit_levels`) computes most again."""
    order = [_short(levels) for levels in mixtures(layers)]
    return max(choices, key=order.index)


def _short(levels: tuple[str, ...]) -> str | tuple[str, ...]:
    return levels[0] if len(set(levels)) == 1 else levels


def worst_pack(scenario: Scenario, packs: Sequence[PackShape], levels: str | Sequence[str]) -> PackShape:
    """Return the pack that needs most memory."""
    full = set(levels_of(levels, scenario.architecture.layers)) == {"full"}
    return largest(packs, scenario, keeps_all=not full)


def plenty(scenario: Scenario, packs: Sequence[PackShape], machine: Machine, runs: int = 1) -> bool:
    """Return whether twice a generous count is there for each of so many ``runs``, so that a closer look is not worth
    its seconds."""
    a, size, lora = scenario.architecture, scenario.compute.itemsize, scenario.adapter
    if not scenario.full and not isinstance(lora, LoraConfig):
        return False  # how much another method trains is its own affair
    if any(scenario.bytes_of_scores(max(pack.lengths)) for pack in packs):
        return False  # it grows with the square of a document
    pack = worst_pack(scenario, packs, "none")
    layer = a.hidden * 10 + a.intermediate * 6 + 4 * (a.heads + a.kv_heads) * a.head_dim
    if isinstance(lora, LoraConfig) and (lora.dora or lora.dropout):
        layer *= 2  # each side path keeps an input of its own
    weights = a.layers * (3 * a.hidden * a.intermediate + 2 * a.hidden * a.head_dim * (a.heads + a.kv_heads))
    weights += 2 * a.vocabulary * a.hidden
    trained = STATE_BYTES * (weights if scenario.full else _adapter_parameters(scenario))
    at_once = rows_at_once(a.vocabulary, scenario.device) if scenario.savings.logits else pack.tokens
    rows = min(pack.supervised, at_once)
    count = pack.tokens * layer * a.layers * size + weights * size + trained + 12 * rows * a.vocabulary
    return machine.fits((2 * count + KERNELS) * machine.shared_by(scenario.world) * runs)


def _adapter_parameters(scenario: Scenario) -> int:
    """Return how many parameters an adapter has on all linears, with its largest rank on each of them."""
    a, lora = scenario.architecture, scenario.adapter
    assert isinstance(lora, LoraConfig)
    rank = max([lora.rank, *lora.rank_pattern.values()])
    sizes = 7 * a.hidden + 2 * (a.heads + a.kv_heads) * a.head_dim + 3 * a.intermediate  # of inputs and outputs
    return a.layers * rank * sizes + len(lora.modules_to_save) * a.vocabulary * a.hidden
