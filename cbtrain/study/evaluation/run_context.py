"""A run's journal and the APIs it talks to, opened together: what was spent is in the journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.console import say
from cbtrain.journal import Journal, read
from cbtrain.providers.config import ProvidersConfig
from cbtrain.providers.providers import Providers
from cbtrain.study.run_files import EVENTS


@dataclass(frozen=True, slots=True)
class RunContext:
    """``past`` are the events of earlier processes of the run."""

    journal: Journal
    past: list[dict[str, Any]]
    providers: Providers


@asynccontextmanager
async def open_run(settings: ProvidersConfig, folder: Path, console: Console) -> AsyncIterator[RunContext]:
    """The journal of the run in ``folder`` and its providers. Raises UserError where another process has them."""
    with Journal(folder / EVENTS) as journal:
        past = list(read(journal.path))

        def warn(text: str) -> None:
            say(console, f"note: {text}")

        async with Providers(settings, events=journal, past=past, warn=warn) as providers:
            yield RunContext(journal, past, providers)
