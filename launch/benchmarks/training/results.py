"""Results of all rounds: medians, the JSON file, the table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.training.checks import difference, problems
from benchmarks.training.rows import Plan, Row
from cbtrain.environment import now
from cbtrain.errors import UserError
from cbtrain.files import write_atomic

MEASURED, REFUSED, FAILED, NOT_INSTALLED = "measured", "refused", "failed", "not installed"


@dataclass
class Results:
    """``setup`` is what rows must have in common to be compared (JSON); ``kept`` are rows of an earlier call with the
    same setup, by name; ``rounds`` are the results of each row's processes, ``failures`` why a row has none.
    ``revision`` is the commit that is measured."""

    plan: Plan
    setup: dict[str, Any]
    file: Path | None
    revision: str | None = None
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)

    def keep_earlier(self, rerun: list[str]) -> None:
        """Keep the rows of the file that are not measured again and were measured with the same setup. Raises UserError
        if the file holds something else."""
        if self.file is None or not self.file.exists():
            return
        try:
            earlier = {row["name"]: row for row in json.loads(self.file.read_text()) if row["setup"] == self.setup}
        except (ValueError, TypeError, KeyError):
            hint = "Name another file: this one would be overwritten."
            raise UserError("it is not a file of this benchmark", where=f"--json {self.file}", hint=hint) from None
        self.kept = {name: row for name, row in earlier.items() if name not in rerun}

    def reference(self) -> dict[str, Any] | None:
        """Return a result of ``ours``, of this call or an earlier one."""
        if rounds := self.rounds.get("ours"):
            return rounds[0]
        return self.kept.get("ours")

    def add(self, name: str, result: dict[str, Any]) -> None:
        self.rounds.setdefault(name, []).append(result)
        self.write()

    def fail(self, name: str, status: str, reason: str) -> None:
        self.failures[name] = (status, reason)
        self.write()

    def rows(self) -> list[dict[str, Any]]:
        """Return a row (JSON) for each that was measured, or could not be, in the order of the plan."""
        rows = []
        limit = self._limit()
        for planned in self.plan.rows:
            if planned.name in self.failures:
                rows.append(self._failed(planned))
            elif planned.name in self.rounds:
                rows.append(self._row(planned, limit))
            elif planned.name in self.kept:
                rows.append(self.kept[planned.name])
        return rows

    def write(self) -> None:
        if self.file is not None:
            write_atomic(self.file, json.dumps(self.rows(), indent=2) + "\n")

    def _limit(self) -> tuple[float | None, float | None]:
        """Return tokens a second and processor seconds of the limit, None if it is not known."""
        if rounds := self.rounds.get("limit"):
            return _speed(rounds, "tokens"), _median(rounds, "cpu_seconds")
        earlier = self.kept.get("limit", {})
        return earlier.get("tokens_per_second"), earlier.get("cpu_seconds")

    def _row(self, row: Row, limit: tuple[float | None, float | None]) -> dict[str, Any]:
        rounds, reference = self.rounds[row.name], self.reference() if row.compared else None
        found = [text for result in rounds for text in problems(result, row, self.plan, reference)]
        speed = None if found else _speed(rounds, "tokens")
        first = rounds[0]
        apart = difference(first["losses"], reference["losses"]) if reference and "losses" in first else None
        cpu_seconds = _median(rounds, "cpu_seconds")
        fastest, least = limit if row.compared and not found else (None, None)
        return {
            "name": row.name,
            "status": REFUSED if found else MEASURED,
            "problems": list(dict.fromkeys(found)),
            "tokens_per_second": speed,
            "supervised_tokens_per_second": None if found else _speed(rounds, "supervised"),
            "cpu_seconds": cpu_seconds,
            "peak_memory_bytes": int(_median(rounds, "peak")) if "peak" in first else None,
            "loss": first["losses"][-1] if "losses" in first else None,
            "share_of_limit": speed / fastest if speed and fastest else None,
            "share_of_limit_by_cpu": least / cpu_seconds if least and cpu_seconds else None,
            "fill": first.get("fill"),
            "losses_apart": apart,
            **{key: first[key] for key in ("losses", "grad_norms", "parts", "reserved") if key in first},
            "round_tokens_per_second": None if found else [r["tokens"] / r["seconds"] for r in rounds],
            "round_step_seconds": [result["step_seconds"] for result in rounds],
            "tokens": first["tokens"],
            "supervised_tokens": first["supervised"],
            **self._about(row),
            "versions": first["versions"],
        }

    def _failed(self, row: Row) -> dict[str, Any]:
        status, reason = self.failures[row.name]
        figures = ("tokens_per_second", "supervised_tokens_per_second", "cpu_seconds", "peak_memory_bytes", "loss")
        nothing = dict.fromkeys((*figures, "share_of_limit"))
        return {"name": row.name, "status": status, "problems": [reason], **nothing, **self._about(row)}

    def _about(self, row: Row) -> dict[str, Any]:
        return {
            "geometry": row.geometry,
            "weights": row.weights,
            "activation_checkpointing": row.activation_checkpointing,
            "setup": self.setup,
            "revision": self.revision,
            "written": now(),
        }


def good(rows: list[dict[str, Any]]) -> bool:
    """Return whether no row failed or was refused; a system that is not installed is no failure."""
    return all(row["status"] in (MEASURED, NOT_INSTALLED) for row in rows)


COLUMNS = {
    "": 13,
    "tokens/s": -19,
    "supervised/s": -13,
    "CPU s": -7,
    "of limit": -9,
    "by CPU": -7,
    "peak": -10,
    "fill": -7,
    "loss": -9,
}
"""Headings of the table and widths of its columns, negative where they are aligned on the right."""


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table, with what is wrong in place of figures, then the ratios of ours to each other system."""
    print("\n" + _line(list(COLUMNS)))
    for row in rows:
        if row["status"] != MEASURED:
            print(f"{row['name']:13} {row['status']}: {'; '.join(row['problems'])}")
            continue
        speeds, speed, peak = row["round_tokens_per_second"], row["tokens_per_second"], row["peak_memory_bytes"]
        spread = f" ({min(speeds):,.0f} to {max(speeds):,.0f})" if len(speeds) > 1 else ""
        cells = (
            row["name"],
            f"{speed:,.0f}{spread}",
            f"{row['supervised_tokens_per_second']:,.0f}",
            f"{row['cpu_seconds']:.1f}",
            _text(row["share_of_limit"], ".1%"),
            _text(row["share_of_limit_by_cpu"], ".1%"),
            f"{peak / 1e6:,.0f} MB" if peak else "",
            _text(row["fill"], ".1%"),
            _text(row["loss"], ".5f"),
        )
        print(_line(cells))
    print("", *ratios(rows), sep="\n")


def _line(cells: Sequence[str]) -> str:
    return " ".join(
        f"{cell:<{width}}" if width > 0 else f"{cell:>{-width}}"
        for cell, width in zip(cells, COLUMNS.values(), strict=True)
    )


def ratios(rows: list[dict[str, Any]]) -> list[str]:
    """Return a line for each system that ``ours`` can be compared with."""
    measured = {row["name"]: row for row in rows if row["status"] == MEASURED}
    ours = measured.get("ours")
    if ours is None:
        return []
    lines = []
    for name, row in measured.items():
        if row["peak_memory_bytes"] is None or row["losses_apart"] is None or row is ours:
            continue
        keys = ("tokens_per_second", "supervised_tokens_per_second", "cpu_seconds", "peak_memory_bytes")
        speed, supervised, cpu, peak = (ours[key] / row[key] for key in keys)
        lines.append(
            f"ours: {speed:.2f} x the tokens/s of {name}, {supervised:.2f} x its supervised tokens/s, "
            f"{cpu:.2f} x its processor seconds, {peak:.2f} x its memory; losses {row['losses_apart']:.0e} apart"
        )
    return lines


def _median(rounds: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(result[key] for result in rounds))


def _speed(rounds: list[dict[str, Any]], what: str) -> float:
    return float(statistics.median(result[what] / result["seconds"] for result in rounds))


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
