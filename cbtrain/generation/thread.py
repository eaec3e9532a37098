"""An engine on a thread of its own, awaited from asyncio: generation never blocks the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import Future
from types import TracebackType

from cbtrain.generation.engine import Completion, GenerationEngine, Request


class EngineFailed(RuntimeError):
    """The engine has stopped by a defect: nothing more comes from it."""


class EngineThread:
    """Owns ``engine`` while entered; :meth:`complete` may be awaited from any number of tasks."""

    def __init__(self, engine: GenerationEngine) -> None:
        self.engine = engine
        self._requests: queue.SimpleQueue[tuple[Request, Future[Completion]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="cbtrain-engine", daemon=True)
        self._closing = False
        self._broken: BaseException | None = None

    async def __aenter__(self) -> EngineThread:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._requests.put(None)
        await asyncio.to_thread(self._thread.join)

    @property
    def failed(self) -> bool:
        return self._broken is not None

    async def complete(self, request: Request) -> Completion:
        """Return the completion of ``request``; cancelling the await cancels it in the engine.

        Raises ContextOverflow, and EngineFailed if a defect has stopped the engine.
        """
        if self._broken:
            raise EngineFailed("the engine has failed") from self._broken
        future: Future[Completion] = Future()
        self._requests.put((request, future))
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        outer: dict[Future[Completion], Future[Completion]] = {}
        try:
            while not self._closing:
                # Wait only when there is nothing to do; else take what has come in and continue.
                blocking = self.engine.idle
                while True:
                    try:
                        item = self._requests.get(block=blocking)
                    except queue.Empty:
                        break
                    if item is None:
                        return
                    self._submit(*item, outer)
                    blocking = False
                if not self.engine.idle:
                    self.engine.step()
        except BaseException as error:
            self._broken = error
            raise
        finally:
            self._abandon(list(outer.values()))

    def _abandon(self, futures: list[Future[Completion]]) -> None:
        """End every wait for an answer of an engine that has stopped."""
        while not self._requests.empty():
            item = self._requests.get()
            if item:
                futures.append(item[1])
        for future in futures:
            if self._broken and not future.cancelled():
                future.set_exception(EngineFailed("the engine has failed"))
            else:
                future.cancel()

    def _submit(
        self, request: Request, future: Future[Completion], outer: dict[Future[Completion], Future[Completion]]
    ) -> None:
        if future.cancelled():
            return
        try:
            inner = self.engine.submit(request)
        except ValueError as error:
            future.set_exception(error)
            return
        outer[inner] = future

        def deliver(done: Future[Completion]) -> None:
            outer.pop(done, None)
            if not done.cancelled() and future.set_running_or_notify_cancel():
                future.set_result(done.result())

        def cancel(done: Future[Completion]) -> None:
            if done.cancelled():
                inner.cancel()

        inner.add_done_callback(deliver)
        future.add_done_callback(cancel)
