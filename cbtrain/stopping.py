"""Stop asynchronous work when a signal asks for it: nothing new starts, what is under way may end, all of it is saved.

SIGTERM, SIGINT (Ctrl-C), SIGUSR1 (what SLURM can send before a time limit) and SIGHUP (a lost login) ask for it. A
second Ctrl-C ends the process at once: every record is on disk before the work goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn, TypeVar

from cbtrain.errors import Stopped

if sys.version_info >= (3, 11):  # bounds a block and costs no task of its own, as ``asyncio.wait_for`` does
    from asyncio import timeout as timeout
else:
    from async_timeout import timeout as timeout  # type: ignore[import-not-found]  # comes with aiohttp there

Done = TypeVar("Done")

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")

SAME_PRESS_S = 0.5
"""Seconds in which a second SIGINT is taken for the same Ctrl-C, which a launcher may pass on once more."""


class StopRequest:
    """Enter it (``with``) inside a running event loop: signals are heard. ``name`` is that of the first, or None.

    What is under way has ``limit_s`` seconds to end and is cancelled then; ``say`` tells a person so. One that is not
    entered never stops anything.
    """

    def __init__(self, limit_s: float = 0.0, say: Callable[[str], None] = lambda text: None) -> None:
        self.limit_s, self._say = limit_s, say
        self.name: str | None = None
        self._heard_at = 0.0
        self._late = False
        self._before: dict[int, Any] = {}
        self._waiting: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._limit: asyncio.TimerHandle | None = None

    def __enter__(self) -> StopRequest:
        self._loop = asyncio.get_running_loop()
        self._before = set_handlers(SIGNALS, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._limit:
            self._limit.cancel()
        restore_handlers(self._before)

    def refuse_new(self) -> None:
        """Raise Stopped where a signal has come: call it before something begins."""
        if self.name:
            raise Stopped(self.name)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Around waiting before something begins. A signal ends the waiting: raises Stopped."""
        self.refuse_new()
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task in self._waiting:  # cancelled by somebody else
                raise
            if sys.version_info >= (3, 11):
                task.uncancel()
            assert self.name is not None
            raise Stopped(self.name) from None
        finally:
            self._waiting.discard(task)

    async def together(
        self, works: Iterable[Coroutine[Any, Any, Done]], done: Callable[[], str] = lambda: ""
    ) -> list[Done]:
        """Return all results in order. Where one work fails, the others are cancelled and have ended before its error
        is raised.

        Raises Stopped where a signal kept works from being done; all of them have ended then. ``done`` says how many
        were done.
        """
        unfinished = 0

        async def unless_stopped(work: Coroutine[Any, Any, Done]) -> Done | None:
            nonlocal unfinished
            try:
                return await work
            except Stopped:
                unfinished += 1
                return None

        tasks = [asyncio.create_task(unless_stopped(work)) for work in works]
        self._tasks.update(tasks)
        try:
            results = await asyncio.gather(*tasks)
        except BaseException as error:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._late and self.name and isinstance(error, asyncio.CancelledError):
                raise Stopped(self.name, done=done()) from None
            raise
        finally:
            self._tasks.difference_update(tasks)
        if unfinished and self.name:
            raise Stopped(self.name, done=done())
        return results  # type: ignore[return-value]  # none is missing

    def _hear(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.name is None:
            self.name, self._heard_at = name, time.monotonic()
            self._loop.call_soon_threadsafe(self._begin)
        elif name == "SIGINT" and time.monotonic() - self._heard_at > SAME_PRESS_S:
            end_now("what was recorded is on disk")

    def _begin(self) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        for task in waiting:
            task.cancel()
        self._limit = self._loop.call_later(self.limit_s, self._give_up)
        self._say(
            f"{self.name}: nothing new is started, what is under way has {self.limit_s:,.0f} s to end "
            "(Ctrl-C again ends at once)"
        )

    def _give_up(self) -> None:
        self._late = True
        for task in self._tasks:
            task.cancel()


def protect(work: asyncio.Future[Done]) -> asyncio.Future[Done]:
    """Return ``work`` as a future whose cancellation does not reach it. An error that ``work`` then ends with is
    dropped: asyncio would print that nobody has asked for it."""
    work.add_done_callback(lambda done: done.cancelled() or done.exception())
    return asyncio.shield(work)


@contextmanager
def stop_at_once(signals: Sequence[str] = SIGNALS) -> Iterator[None]:
    """Inside, one of ``signals`` raises Stopped wherever the program stands: for work that has nothing under way that
    could be lost. Handlers that are set further inside take its place. Does nothing under ``torchrun``, whose ranks
    must stop together, and in other threads than the main one."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    before = set_handlers(signals if alone else (), stop)
    try:
        yield
    finally:
        restore_handlers(before)


def ignore_signals() -> None:
    """For a process that ends with its parent: what is sent to both is the parent's to obey."""
    set_handlers(SIGNALS, signal.SIG_IGN)


def end_now(kept: str) -> NoReturn:
    """End the process from inside a signal handler, where nothing may be locked: show the cursor, say what is kept."""
    os.write(sys.stderr.fileno(), f"\x1b[?25h\ninterrupted; {kept}\n".encode())
    os._exit(130)


def set_handlers(names: Sequence[str], handler: Any) -> dict[int, Any]:
    """Return the handlers that were set before, by number; only the main thread can set any."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in stop_signals(names)}


def stop_signals(names: Sequence[str] = SIGNALS) -> list[signal.Signals]:
    """Those of ``names`` that there are on this system, without a SIGHUP that ``nohup`` has this process ignore."""
    numbers = [signal.Signals[name] for name in names if hasattr(signal, name)]
    return [n for n in numbers if n.name != "SIGHUP" or signal.getsignal(n) != signal.SIG_IGN]


def restore_handlers(before: dict[int, Any]) -> None:
    """Set the handlers again that :func:`set_handlers` returned."""
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
