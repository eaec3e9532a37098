"""An engine on a thread of its own, awaited from asyncio: generation never blocks the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, InvalidStateError
from types import TracebackType
from typing import TypeVar

from cbtrain.generation.engine import GenerationEngine
from cbtrain.generation.request import Completion, Listener, Piece, Request, merged

T = TypeVar("T")


class EngineFailed(RuntimeError):
    """The engine's thread has ended: nothing more comes from it."""


class EngineThread:
    """Owns ``engine`` while entered; its methods may be awaited from any number of tasks of one event loop."""

    def __init__(self, engine: GenerationEngine) -> None:
        self.engine = engine
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._pending: set[Future[object]] = set()
        self._thread = threading.Thread(target=self._run, name="cbtrain-engine", daemon=True)
        self._closing, self._lock, self._ended = threading.Event(), threading.Lock(), False

    async def __aenter__(self) -> EngineThread:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._jobs.put(lambda: None)
        await asyncio.to_thread(self._thread.join)

    @property
    def failed(self) -> bool:
        return self._thread.ident is not None and not self._thread.is_alive() and not self._closing.is_set()

    async def complete(self, request: Request) -> Completion:
        """Return the completion of ``request``; cancelling the await cancels it in the engine.

        Raises BadRequest, ContextOverflow, RequestFailed on a defect in this request, EngineFailed if the engine has
        ended.
        """
        return await asyncio.wrap_future(self._submit(request))

    async def stream(self, request: Request) -> AsyncGenerator[Piece | Completion, None]:
        """Yield the answer's pieces as they come, then its Completion. Raises as :meth:`complete`.

        Who reads slowly gets longer pieces: no more is kept than the answer. Close the iterator
        (``contextlib.aclosing``) to cancel the request.
        """
        mailbox = _Mailbox(asyncio.get_running_loop())
        future = self._submit(request, mailbox.put)
        future.add_done_callback(lambda done: mailbox.wake())
        try:
            ended = False
            while not ended:
                await mailbox.wait()
                ended = future.done()  # looked at first: what came before the end is then in the mailbox
                pieces = mailbox.take()
                if pieces:
                    yield merged(pieces)
            if future.cancelled():  # the engine has been closed
                raise asyncio.CancelledError
            yield future.result()
        finally:
            future.cancel()

    async def call(self, function: Callable[[], T]) -> T:
        """Return ``function()``, run by the engine's thread between two steps: to mount an adapter, say."""
        future: Future[T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
                    if not isinstance(error, Exception):
                        raise

        self._queue(job, future)
        return await asyncio.wrap_future(future)

    def _submit(self, request: Request, listener: Listener | None = None) -> Future[Completion]:
        future: Future[Completion] = Future()

        def job() -> None:
            try:
                self.engine.submit(request, listener, future)
            except Exception as error:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)

        self._queue(job, future)
        return future

    def _queue(self, job: Callable[[], None], future: Future[T]) -> None:
        if self._thread.ident is None:
            raise EngineFailed("the engine has not been started: enter it with `async with`")
        with self._lock:
            if self._ended or self._closing.is_set():
                raise EngineFailed("the engine has ended")
            self._pending.add(future)  # type: ignore[arg-type]
        future.add_done_callback(self._pending.discard)
        self._jobs.put(job)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                # Wait only when there is nothing to do; else take what has come in and continue.
                if self.engine.idle:
                    self._jobs.get()()
                while not self._jobs.empty():
                    self._jobs.get()()
                self._step()
        finally:
            with self._lock:
                self._ended, pending = True, list(self._pending)
            for future in pending:
                if self._closing.is_set():
                    future.cancel()
                elif not future.done():
                    with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
                        future.set_exception(EngineFailed("the engine has failed"))

    def _step(self) -> None:
        try:
            self.engine.step()
        except Exception as error:  # a defect outside of any one request: those under way end, later ones are served
            self.engine.fail_all(error)


class _Mailbox:
    """Pieces on their way from the engine's thread to a task."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._lock, self._filled = loop, threading.Lock(), asyncio.Event()
        self._pieces: list[Piece] = []
        self._woken = False

    def put(self, piece: Piece) -> None:
        with self._lock:
            self._pieces.append(piece)
        self.wake()

    def wake(self) -> None:
        """End the wait of the task. One call of the loop is under way at a time, however many pieces come."""
        with self._lock:
            if self._woken:
                return
            self._woken = True
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
            self._loop.call_soon_threadsafe(self._filled.set)

    async def wait(self) -> None:
        """Wait for the next :meth:`wake`."""
        await self._filled.wait()
        self._filled.clear()
        with self._lock:
            self._woken = False

    def take(self) -> list[Piece]:
        with self._lock:
            pieces, self._pieces = self._pieces, []
        return pieces
