"""``metrics.jsonl``: one JSON object a line, for every step, validation and event of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cbtrain.files import write_atomic

NAME = "metrics.jsonl"


class MetricsFile:
    """Appends lines to ``folder/metrics.jsonl``, each on the disk before the next step begins.

    With ``keep_until`` the lines up to that step stay and the later ones, which a resumed run writes again, are
    dropped; with None the file starts anew.
    """

    def __init__(self, folder: Path, keep_until: int | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        kept: list[dict[str, Any]] = []
        if keep_until is not None and self.path.exists():
            kept = [record for record in read_metrics(self.path) if (record.get("step") or 0) <= keep_until]
        write_atomic(self.path, "".join(f"{json.dumps(record)}\n" for record in kept))
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append ``record``; what JSON cannot hold (nan, infinity) becomes null."""
        line = json.dumps(_finite(record), allow_nan=False, default=str) + "\n"
        if self._file.closed:  # an event after the end, e.g. a warning of a writing thread
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
            return
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Return the lines of ``path``, without one that a killed run has left half written."""
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
