"""The context that every step of an evaluation shares: settings, folder, console, journal, events, APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.console import say
from cbtrain.errors import Stopped
from cbtrain.eval.judge_audit import writer
from cbtrain.eval.rating import judging
from cbtrain.eval.simulation import after_session, restoring
from cbtrain.eval.watching.display import Display
from cbtrain.eval.watching.tally import Ended, Tally
from cbtrain.files import share_with
from cbtrain.journal import Check, Journal, Record, Shape, is_section, is_text, read
from cbtrain.providers.costs import ledger
from cbtrain.providers.providers import Providers
from cbtrain.stopping import StopRequest
from cbtrain.study.run_files import EVENTS, REQUESTS

PLAN = "plan"
"""The kind of the journal's record of a protocol."""

BEGUN = "run_started"
"""The kind of the journal's record of what the first session was begun with."""

SETTINGS = "session_settings"
"""The kind of the journal's record of what decides a session, under the key that ``session_started`` names."""


def _begun_fields(record: Record) -> dict[str, Check]:
    return {"settings": is_section} if "settings" in record else {}  # of older versions only


SHAPES: dict[str, Shape] = {
    PLAN: {"protocol": is_section, "time": is_text},
    BEGUN: _begun_fields,
    SETTINGS: {"key": is_text, "settings": is_section},
    **restoring.SHAPES,
    **after_session.SHAPES,
    **judging.SHAPES,
    **writer.SHAPES,
    **ledger.SHAPES,
}
"""The fields of a journal's records on which an evaluation or a rating is continued."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """``events`` are those in the journal: of earlier processes of the run, and what :meth:`record` has added.
    ``display`` shows how far sessions and ratings are."""

    config: StudyConfig
    folder: Path
    console: Console
    journal: Journal
    events: list[dict[str, Any]]
    providers: Providers
    stop: StopRequest
    display: Display

    def record(self, kind: str, **fields: Any) -> None:
        """Add an event, on disk when this returns."""
        self.events.append(self.journal.append(kind, **fields))

    def say(self, text: str) -> None:
        say(self.console, text)


@asynccontextmanager
async def open_run(config: StudyConfig, folder: Path, console: Console) -> AsyncIterator[RunContext]:
    """Open the run in ``folder``, which is made if it is missing, with its journal and its APIs; what was spent is in
    the journal. Raises UserError if another process has them, or if the journal is damaged; Stopped after a signal."""

    def warn(text: str) -> None:
        say(console, f"note: {text}")

    share_with(config.sharing)
    with StopRequest(config.providers.stop_wait_s, warn) as stop, Journal(folder / EVENTS) as journal:
        events, tally = list(read(journal.path, SHAPES)), Tally()
        for event in events:
            tally.add(event)
        journal.listener = tally.add
        with _end_recorded(journal, tally):
            async with Providers(
                config.providers,
                events=journal,
                earlier_events=events,
                requests=folder / REQUESTS,
                stop=stop,
                warn=warn,
            ) as providers:
                display = Display(console, tally, providers)
                yield RunContext(config, folder, console, journal, events, providers, stop, display)
            stop.refuse_new()


@contextmanager
def _end_recorded(journal: Journal, tally: Tally) -> Iterator[None]:
    """Write to ``journal`` how the body has ended: whoever watches the run cannot tell a process that was stopped from
    one that was killed. A process that has written nothing else and did not finish the run says nothing."""
    how, why, records = "done", "", tally.records
    try:
        yield
    except Stopped as stopped:
        how, why = "stopped", stopped.name
        raise
    except BaseException as error:
        how, why = "failed", " ".join(str(error).split()) or type(error).__name__
        raise
    finally:
        if tally.records > records or (how == "done" and records and tally.ended != Ended("done")):
            with suppress(OSError, ValueError):  # a full disk must not hide the error itself
                journal.append("run_ended", how=how, why=why)
