"""What the layers of a sweep's runs compute again, so that all of it fits into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from rich.console import Console

from cbtrain.study.sweep.memory import Need, Together
from cbtrain.study.sweep.prepare import PreparedRun
from cbtrain.training.planning.fitting import Levels
from cbtrain.training.planning.machine import Machine


def choose_levels(
    runs: Sequence[PreparedRun], machine: Machine, console: Callable[[str], Console], *, joint: bool
) -> dict[str, Levels]:
    """Return by name what the layers of each of ``runs`` compute again on ``machine``, while the others keep what they
    keep. Those that are computed in one pass (``joint``) have the same levels, with which such a pass fits.
    ``console`` returns that of a run, on which it is said. Raises UserError as
    :meth:`cbtrain.study.stages.StageSpec.levels`."""
    needs = {run.name: Need.of(run, joint=joint) for run in runs}
    kept = sum(need.kept for need in needs.values())
    joined = Together(Together(list(needs.values())).joining)
    names = {need.name for need in joined.needs}
    aside = sum(need.kept for name, need in needs.items() if name not in names)
    easy = joint and joined.plenty(machine.beside(aside))

    @cache
    def together(levels: Levels) -> int:
        return 0 if easy else joined.memory(levels).total

    def levels(run: PreparedRun, others: int, needed: Callable[[Levels], int] | None = None) -> Levels:
        with run.naming_errors():
            return run.spec.levels(run.dataset.train.documents, console(run.name), machine.beside(others), needed)

    joining = [run for run in runs if run.name in names]
    found = {run.name: levels(run, kept - needs[run.name].kept) for run in runs if run.name not in names}
    chosen: Levels = "none"
    for run in (run for run in joining if run.spec.chooses):
        found[run.name] = chosen = levels(run, aside, together)
    for run in (run for run in joining if not run.spec.chooses):
        found[run.name] = levels(run, aside, lambda _: together(chosen))
    return found
