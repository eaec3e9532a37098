"""Start the processes of runs, some at a time, and end them in order when a signal asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cbtrain.console import say
from cbtrain.errors import Stopped
from cbtrain.stopping import StopRequest
from cbtrain.study.method_comparison.plan_files import AnyPlan, plan_file

STOPPED = 75
"""Status of a process that a signal has ended, with all saved."""

TO_SAVE_S = 120.0
"""Seconds that processes have to save and end after a signal."""

SHOWN = 4
"""Runs that are named while they run."""

JOBS = "CBTRAIN_JOBS"
"""Environment variable that tells a process how many run at a time."""


class Runner(Generic[AnyPlan]):
    """Does the steps of runs in the folder ``runs``, at most ``jobs`` at a time, each by ``python -m module STEP``.
    with the file of its plan. ``tell`` returns a line about a step that is done."""

    def __init__(
        self, module: str, runs: Path, jobs: int, console: Console, tell: Callable[[str, AnyPlan], str]
    ) -> None:
        self._command = (sys.executable, "-m", module)
        self.runs, self.jobs, self.console, self.tell = runs, jobs, console, tell
        self._environment = dict(os.environ)
        self._environment[JOBS] = str(jobs)
        if jobs > 1:  # they share the processor
            self._environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
        self._processes: set[asyncio.subprocess.Process] = set()
        self._running: dict[str, None] = {}

    def do(self, works: Sequence[tuple[str, AnyPlan]], title: str) -> dict[str, str]:
        """Do ``works``. Return by name of the run what was wrong with those that failed. Raises Stopped if a signal
        ends them; what they have done is kept."""
        return asyncio.run(self._do(works, title)) if works else {}

    async def _do(self, works: Sequence[tuple[str, AnyPlan]], title: str) -> dict[str, str]:
        slots, failed = asyncio.Semaphore(self.jobs), dict[str, str]()
        columns = (
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}"),
        )
        shown = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        with StopRequest(TO_SAVE_S, self._end_all) as stop, shown as progress:
            task = progress.add_task("", total=len(works), now="")

            async def one(step: str, plan: AnyPlan) -> None:
                with stop.interruptible():
                    await slots.acquire()
                try:
                    stop.refuse_new()
                    self._running[plan.name] = None
                    progress.update(task, now=", ".join(list(self._running)[:SHOWN]))
                    problem = await self._step(step, plan, stop)
                    if problem is not None:
                        failed[plan.name] = problem
                    say(self.console, self.tell(step, plan) if problem is None else f"{plan.name} failed: {problem}")
                finally:
                    self._running.pop(plan.name, None)
                    slots.release()
                    progress.update(task, now=", ".join(list(self._running)[:SHOWN]))
                progress.advance(task)

            try:
                await stop.together(one(*work) for work in works)
            except BaseException:
                await self._kill_all()
                raise
        return failed

    async def _step(self, step: str, plan: AnyPlan, stop: StopRequest) -> str | None:
        """Do one step in a process of its own; what it prints is added to ``NAME.log``. Return what was wrong."""
        with (self.runs / f"{plan.name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                step,
                str(plan_file(self.runs, plan.name)),
                stdin=asyncio.subprocess.PIPE,  # it ends when this closes, also if this process is killed
                stdout=log,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for this process, which ends the others in order
            )
            self._processes.add(process)
            try:
                assert process.stderr is not None
                words = await process.stderr.read()
                await process.wait()
            finally:
                self._processes.discard(process)
            log.write(words)
        status = process.returncode
        if status == STOPPED and stop.name:
            raise Stopped(stop.name)
        if not status:
            return None
        said = words.decode(errors="replace").strip().splitlines()
        how = f"killed by signal {-status}" if status < 0 else f"status {status}"
        return said[-1] if said else f"{how}, see {self.runs / plan.name}.log"

    def _end_all(self, text: str) -> None:
        """Pass a signal on: each process saves and ends."""
        say(self.console, text)
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    async def _kill_all(self) -> None:
        for process in list(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
