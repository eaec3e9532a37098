"""What a run tells while it goes: ``metrics.jsonl``, and a live line in the terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Telemetry:
    """Writes one JSON line an optimizer step to ``folder/metrics.jsonl`` and shows progress over the token budget.

    Without a terminal it prints a plain line at each validation instead. ``active=False`` (ranks other than 0) is
    silent and writes nothing.
    """

    def __init__(self, title: str, budget: int, folder: Path, console: Console, *, active: bool = True) -> None:
        self.title, self.console, self.active = title, console, active
        self.started = time.perf_counter()
        self.tokens = 0
        self._line = "starting"
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8") if active else None
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[line]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (active and console.is_terminal),
        )
        self._task = self._progress.add_task(title, total=budget, line=self._line)

    def __enter__(self) -> Telemetry:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._file:
            self._file.close()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def step(self, *, tokens: int, loss: float, validation: float | None, **fields: Any) -> None:
        """Record one optimizer step; ``tokens`` counts all tokens so far, ``validation`` is the latest loss there."""
        self.tokens = tokens
        speed = tokens / max(self.seconds, 1e-9)
        self._write(kind="step", tokens=tokens, loss=loss, tokens_per_second=round(speed, 1), **fields)
        seen = f"  validation {validation:.3f}" if validation is not None else ""
        self._progress.update(self._task, completed=tokens, line=f"loss {loss:.3f}{seen}  {speed:,.0f} tokens/s")

    def validation(self, *, tokens: int, loss: float, best: bool) -> None:
        self._write(kind="validation", tokens=tokens, loss=loss, best=best)
        if self.active and not self.console.is_terminal:
            speed = tokens / max(self.seconds, 1e-9)
            mark = " (best)" if best else ""
            self.console.print(
                f"{self.title}: {tokens:,} tokens, {speed:,.0f} tokens/s, validation loss {loss:.4f}{mark}",
                highlight=False,
            )

    def _write(self, **record: Any) -> None:
        if self._file:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
