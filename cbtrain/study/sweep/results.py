"""What a sweep has come to: a row for each run, by held-out loss, and the best one."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cbtrain.console import plain, say, table_of
from cbtrain.errors import UserError, first_of
from cbtrain.files import read_sealed, seal, write_atomic
from cbtrain.study.run_files import STATE, SUMMARY
from cbtrain.study.sweep.checks import differing
from cbtrain.study.sweep.files import RESULTS, TABLE
from cbtrain.study.sweep.folder import read_note
from cbtrain.study.sweep.held_out import Comparison, documents_digest, noted_loss
from cbtrain.study.sweep.prepare import PreparedRun
from cbtrain.study.sweep.row import RunResult
from cbtrain.study.sweep.seeds import OverSeeds, over_seeds
from cbtrain.study.sweep.train import FAILED
from cbtrain.study.untrained_texts import GENERAL
from cbtrain.training.forgetting import percent
from cbtrain.training.telemetry import wording

SCHEMA = "cbtrain.sweep/1"

DIFFERS = 48
"""Letters of the settings in which a run differs, in the table of the terminal."""


@dataclass(frozen=True, slots=True)
class SweepResults:
    """``runs`` by speaker and objective, in it the lowest held-out loss first, of pairs of answers the most that are
    ranked rightly; ``best`` names the best run of each of which several are compared. ``seeds``: runs that differ in
    the seed alone."""

    runs: list[RunResult]
    best: dict[str, str]
    notes: list[str]
    seeds: list[OverSeeds] = field(default_factory=list)

    @property
    def failed(self) -> list[RunResult]:
        return [run for run in self.runs if run.failed]


def results_of(runs: Sequence[PreparedRun], comparisons: Mapping[str, Comparison | None], folder: Path) -> SweepResults:
    """Return the results of ``runs``, all of which have ended, from the sweep's ``folder``; ``comparisons`` says by
    speaker how they are compared."""
    differs = differing({run.name: run.config for run in runs})
    found: list[RunResult] = []
    best: dict[str, str] = {}
    notes: list[str] = []
    for group, members in comparable(runs):
        comparison = comparisons[group]
        rows = [_result(run, comparison, folder, differs[run.name]) for run in members]
        rows.sort(key=lambda row: row.rank)
        found += rows
        if len(compared := [row for row in rows if row.held_out_loss is not None]) > 1:
            best[group] = compared[0].name
        notes += _notes(group, comparison, rows)
    if joint := [row.name for row in found if row.joint_steps]:
        names = ", ".join(first_of(joint, 5))
        notes.append(f"{names}: computed with others in one pass (--joint), equal to a single run up to rounding")
    return SweepResults(found, best, notes, over_seeds(found))


def comparable(runs: Sequence[PreparedRun]) -> Iterator[tuple[str, list[PreparedRun]]]:
    """Yield the runs of each speaker and objective: others have no loss in common."""
    for group in dict.fromkeys(run.group for run in runs):
        yield group, [run for run in runs if run.group == group]


def _result(run: PreparedRun, comparison: Comparison | None, folder: Path, differs: dict[str, Any]) -> RunResult:
    if not (run.folder / STATE).exists():
        problem = str(read_note(folder, run.name).get(FAILED) or "it has not ended")
        return RunResult(run.name, run.speaker, differs, failed=problem)
    summary = read_sealed(run.stage_folder / SUMMARY, "Remove the run's folder to train it again.")
    own: dict[str, Any] = {
        name: summary.get(name) for name in ("validation_before", "validation_best", "best_step", "curve")
    }
    counts: dict[str, Any] = {
        name: summary[name] for name in ("steps", "tokens", "epochs", "stopped", "trainable", "seconds")
    }
    forgetting: list[dict[str, Any]] = summary.get("forgetting", [])
    general = next((text for text in forgetting if text["text"] == GENERAL), {})
    own |= {"general_rise": general.get("rise"), "general_kl": general.get("kl")}
    own["accuracy"] = summary.get("pairs", {}).get("accuracy")
    counts["joint_steps"] = summary.get("joint_steps", 0)  # not in summaries of older versions
    loss, on, note = own["validation_best"], "its own validation", ""
    if comparison is None:
        loss, on, note = None, "", "no validation"
    elif comparison.common:
        digest = documents_digest(comparison.reference)
        loss, on = noted_loss(folder, run, digest), f"validation of {comparison.reference.name}"
        note = comparison.excluded.get(run.name, "")
    elif why := comparison.excluded.get(run.name):
        loss, note = None, why
    rate = summary["tokens_per_second"]
    loss = loss if loss is not None and math.isfinite(loss) else None
    held_out: dict[str, Any] = {"held_out_loss": loss, "held_out_on": on if loss is not None else "", "note": note}
    return RunResult(run.name, run.speaker, differs, **held_out, **own, **counts, tokens_per_second=rate)


def _notes(speaker: str, comparison: Comparison | None, rows: Sequence[RunResult]) -> list[str]:
    if comparison is None:
        return [f"{speaker}: no run validates, so none is the best"]
    notes = []
    if comparison.common:
        notes.append(f"{speaker}: {comparison.in_words}")
    elif len(rows) > 1 and any(row.accuracy is not None for row in rows):
        notes.append(f"{speaker}: compared by the share of validation pairs that are ranked rightly, then by loss")
    notes += [f"{row.name} is not compared: {row.note}" for row in rows if row.note]
    if len([row for row in rows if row.held_out_loss is not None]) > 1:
        notes.append(f"{speaker}: the best of several is chosen by this loss; on new sessions expect a little more")
    return notes


def write_results(results: SweepResults, folder: Path) -> None:
    """Write ``sweep.json`` and ``sweep.csv`` to ``folder``."""
    rows = [
        {**asdict(run), "perplexity": run.perplexity, "best": run.name in results.best.values()} for run in results.runs
    ]
    seeds = [asdict(group) for group in results.seeds]
    content = {"schema": SCHEMA, "best": results.best, "notes": results.notes, "runs": rows, "over_seeds": seeds}
    write_atomic(folder / RESULTS, json.dumps(seal(content), indent=2) + "\n")
    keys = list(dict.fromkeys(key for run in results.runs for key in run.differs))
    columns = [name for name in rows[0] if name not in ("differs", "curve")]
    columns[2:2] = [key for key in keys if key not in columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = {**row["differs"], **row}
        writer.writerow([_cell(values.get(name)) for name in columns])
    write_atomic(folder / TABLE, text.getvalue())


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list | bool) else value


def print_results(results: SweepResults, console: Console) -> None:
    """Print a table for each speaker, what limits it, and the best runs."""
    for speaker in dict.fromkeys(run.speaker for run in results.runs):
        plain(console, speaker)
        console.print(_table([run for run in results.runs if run.speaker == speaker], results))
    if results.seeds:
        plain(console, "over seeds")
        console.print(_seeds_table(results.seeds))
    for run in results.failed:
        say(console, f"{run.name} failed: {run.failed}")
    for note in results.notes:
        say(console, f"note: {note}")
    for group, name in results.best.items():
        run = next(run for run in results.runs if run.name == name)
        right = "" if run.accuracy is None else f"{run.accuracy:.1%} of the validation pairs ranked rightly, "
        plain(console, f"best {group}: {name}, {right}held-out loss {wording.fixed(run.held_out_loss, 4)}")


def _table(runs: Sequence[RunResult], results: SweepResults) -> Table:
    joint = ["joint steps"] * any(run.joint_steps for run in results.runs)
    forgotten = ["general text"] * any(run.general_rise is not None for run in results.runs)
    ranked = ["ranked rightly"] * any(run.accuracy is not None for run in runs)
    ends = [] if ranked else ["ended by"]  # names of such runs are long
    columns = [*ranked, "held-out loss", *(["best step"] if not ranked else []), *forgotten, "tokens", *joint, *ends]
    if joint or forgotten or ranked:  # on two lines: else 80 letters leave none for the words at the end
        columns = [name.replace(" ", "\n") for name in columns]
    table: Table = table_of("run", *columns, "differs by", words=1)
    table.columns[0].no_wrap = True
    for run in runs:
        best = run.name in results.best.values()
        numbers = [wording.NONE] * len(columns)
        if not run.failed:
            numbers = [
                *(wording.NONE if run.accuracy is None else f"{run.accuracy:.1%}" for _ in ranked),
                wording.fixed(run.held_out_loss, 4),
                *([] if ranked else [wording.NONE if run.best_step is None else f"{run.best_step:,}"]),
                *(percent(run.general_rise) for _ in forgotten),
                wording.thousands(run.tokens),
                *(f"{run.joint_steps:,} of {run.steps:,}" for _ in joint),
                *([run.stopped] if ends else []),
            ]
        words = "failed" if run.failed else in_words(run.differs, DIFFERS)
        table.add_row(f"{run.name} *" if best else run.name, *numbers, words, style="bold" if best else "")
    return table


def _seeds_table(groups: Sequence[OverSeeds]) -> Table:
    table: Table = table_of("runs", "mean held-out loss", "SD", "speaker", "settings", words=2)
    for group in groups:
        losses = wording.fixed(group.mean, 4), wording.fixed(group.sd, 4)
        table.add_row(str(len(group.runs)), *losses, group.speaker, in_words(group.settings, DIFFERS))
    return table


def in_words(differs: Mapping[str, Any], longest: int) -> str:
    """Return the settings in which a run differs: ``rank 8, seed 1``; the end of a key says enough here."""
    parts = [f"{key.rpartition('.')[2]} {_short(value)}" for key, value in differs.items()]
    text = ", ".join(parts)
    return text if len(text) <= longest else f"{text[: longest - 2]} …"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)


def refuse_failed(results: SweepResults, folder: Path) -> None:
    """Raise UserError if runs have failed."""
    if results.failed:
        names = ", ".join(run.name for run in results.failed)
        problem = f"{len(results.failed)} of {len(results.runs)} runs failed: {names}"
        raise UserError(problem, where=folder, hint="The others are finished; the table says what was wrong.")
