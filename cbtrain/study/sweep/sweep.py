"""A whole sweep, in order: settings, corpora and documents, the base, training in turn, comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import heading, say
from cbtrain.errors import UserError, system_problem
from cbtrain.files import holds
from cbtrain.study.pipeline import set_up
from cbtrain.study.run_folder import LOCK as RUN_LOCK
from cbtrain.study.run_folder import begin, remove_fruitless
from cbtrain.study.same_study import require_same, require_same_start
from cbtrain.study.sweep.base import has_base, share_base, with_base
from cbtrain.study.sweep.checks import check_runs, trained_by
from cbtrain.study.sweep.figure import write_figure
from cbtrain.study.sweep.files import NOTES, SWEEP
from cbtrain.study.sweep.folder import check_folder, hold_sweep, read_note, write_note, write_sweep
from cbtrain.study.sweep.held_out import Comparison, comparison_of, documents_digest, measure_missing
from cbtrain.study.sweep.memory import require_memory
from cbtrain.study.sweep.options import Options
from cbtrain.study.sweep.prepare import PreparedRun, prepare_runs
from cbtrain.study.sweep.problems import Problems
from cbtrain.study.sweep.ranks import Place, dealt, leave_group, wait_until
from cbtrain.study.sweep.results import SweepResults, comparable, results_of, write_results
from cbtrain.study.sweep.sweep_file import configs_of, read_sweep
from cbtrain.study.sweep.train import FAILED, SharedDecoder, is_finished, train_runs
from cbtrain.training import distributed


def plan_sweep(file: Path, overrides: Sequence[str], folder: Path) -> dict[str, StudyConfig]:
    """Return the settings of the runs in the sweep ``file``, by name. Raises UserError with everything in them, and in
    the ``folder`` to train in, that keeps the sweep from beginning."""
    problems = Problems()
    configs = configs_of(read_sweep(file, problems), overrides, problems)
    if configs:
        check_runs(configs, str(file), problems)
        check_folder(configs, folder, problems)
    problems.refuse()
    return configs


def train_sweep(
    configs: Mapping[str, StudyConfig], file: Path, folder: Path, console: Console, options: Options
) -> SweepResults | None:
    """Train the runs of ``configs``, which ``file`` has described, in ``folder``, and compare them. Return the results;
    None on other ranks than the leading one.

    What is interrupted continues from its checkpoints. Raises UserError on corpora that cannot be used and on ranks
    that differ, before any weights are loaded; Stopped if a signal ends it, after every run has saved its state.
    """
    first = next(iter(configs.values()))
    set_up(first)
    distributed.join(first.training.timeout_minutes)
    _require_same_settings(configs, options.command)
    folder = distributed.agreed(folder)
    heading(console, "1/3", "Read the corpora")
    runs = prepare_runs(configs, folder, str(file), console)
    _require_same_documents(runs)
    require_memory(runs, options)
    if distributed.rank() == 0:
        hold_sweep(folder)
        write_sweep(configs, folder)
        for run in runs:
            if read_note(folder, run.name).get(FAILED):
                write_note(folder, run.name, **{FAILED: ""})
    place = leave_group(runs[0].spec.machine())
    mine = dealt(runs, place.world)[place.rank]
    fresh = [run for run in mine if not run.folder.exists()]
    try:
        _train_mine(runs, mine, place, console, folder, options)
        return _compare(runs, folder, console) if place.leads else None
    except Exception as error:
        if isinstance(error, UserError | OSError) or system_problem(error):
            _remove_fruitless(fresh, folder)
        raise


def _train_mine(
    runs: Sequence[PreparedRun],
    mine: Sequence[PreparedRun],
    place: Place,
    console: Console,
    folder: Path,
    options: Options,
) -> None:
    """Train those of ``runs`` that are this rank's, and measure them on common sessions where that is needed."""
    heading(console, "2/3", f"Train {len(runs)} runs over one base")
    if place.world > 1:
        say(console, f"rank {place.rank} of {place.world} trains {', '.join(run.name for run in mine) or 'none'}")
    for run in mine:
        if not is_finished(run):
            begin(run.config, run.folder, run.corpus.summary["fingerprint"])
    if place.leads:
        share_base(runs, console)
    wait_until(lambda: all(map(has_base, mine)), runs[0].config.training.timeout_minutes)
    mine = [with_base(run) for run in mine]
    comparisons = _comparisons(runs)
    shared = SharedDecoder(mine[0], console) if mine else None
    if shared is None:
        return
    train_runs(mine, folder, shared, place.machine, console, options)
    for run in filter(is_finished, mine):
        if comparison := comparisons[run.group]:
            measure_missing(run, comparison, folder, lambda: shared.decoder)


def _compare(runs: Sequence[PreparedRun], folder: Path, console: Console) -> SweepResults:
    """Wait until all ``runs`` have ended, on whatever rank, and compare them."""
    comparisons = _comparisons(runs)

    def running() -> list[str]:
        return [run.name for run in runs if not _has_ended(run, comparisons[run.group], folder)]

    if others := running():
        say(console, f"waiting for runs of other ranks: {', '.join(others)}")
    wait_until(lambda: not running(), runs[0].config.training.timeout_minutes)
    heading(console, "3/3", "Compare")
    results = results_of(runs, comparisons, folder)
    write_results(results, folder)
    write_figure(results, folder)
    return results


def _comparisons(runs: Sequence[PreparedRun]) -> dict[str, Comparison | None]:
    """Return by speaker how their runs are compared."""
    return {group: comparison_of(members) for group, members in comparable(runs)}


def _has_ended(run: PreparedRun, comparison: Comparison | None, folder: Path) -> bool:
    """Return whether all is done that there is to do for ``run``, on whatever rank."""
    if read_note(folder, run.name).get(FAILED):
        return True
    return is_finished(run) and (comparison is None or not comparison.lacks(run, folder))


def _require_same_settings(configs: Mapping[str, StudyConfig], options: Mapping[str, Any]) -> None:
    """Raise UserError, on every rank, if one was started with another sweep, other options or versions."""
    require_same_start(next(iter(configs.values())), options)
    settings = {f"run {name}": trained_by(config) for name, config in configs.items()}
    require_same(settings, "Start every rank with the same sweep.")


def _require_same_documents(runs: Sequence[PreparedRun]) -> None:
    """Raise UserError, on every rank, if one has read other corpora or made other documents of them."""
    read = {
        f"run {run.name}": [
            run.corpus.summary["fingerprint"],
            run.corpus.summary["split"],
            run.dataset.train.describe(),
            documents_digest(run),
        ]
        for run in runs
    }
    require_same(read, "Give every node the same files.")


def _remove_fruitless(runs: Sequence[PreparedRun], folder: Path) -> None:
    """Remove what ``runs`` have written that have no checkpoint yet, and the sweep's settings if no run is left."""
    for run in runs:
        if holds(run.folder / RUN_LOCK):
            remove_fruitless(run.folder)
    if not any(path.is_dir() and path.name != NOTES for path in folder.iterdir()):
        (folder / SWEEP).unlink(missing_ok=True)
