"""What every step of an evaluation needs of its run: settings, folder, console, journal, events, APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.journal import Journal, read
from cbtrain.providers.providers import Providers
from cbtrain.study.run_files import EVENTS


@dataclass(frozen=True, slots=True)
class RunContext:
    """``events`` are those in the journal: of earlier processes of the run, and what :meth:`record` has added."""

    config: StudyConfig
    folder: Path
    console: Console
    journal: Journal
    events: list[dict[str, Any]]
    providers: Providers

    def record(self, kind: str, **facts: Any) -> None:
        """Add an event, on disk when this returns."""
        self.events.append(self.journal.append(kind, **facts))

    def say(self, text: str) -> None:
        say(self.console, text)


@asynccontextmanager
async def open_run(config: StudyConfig, folder: Path, console: Console) -> AsyncIterator[RunContext]:
    """Open the run in ``folder`` with its journal and its APIs; what was spent is in the journal. Raises UserError if
    another process has them."""
    with Journal(folder / EVENTS) as journal:
        events = list(read(journal.path))

        def warn(text: str) -> None:
            say(console, f"note: {text}")

        async with Providers(config.providers, events=journal, past=events, warn=warn) as providers:
            yield RunContext(config, folder, console, journal, events, providers)
