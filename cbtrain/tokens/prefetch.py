"""Build micro-batches ahead in a thread, while the model computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType

from cbtrain.tokens.stream import MicroBatch, PackStream


class Prefetcher:
    """Iterates over the micro-batches of ``stream``; a thread builds up to ``ahead`` of them early, page-locked with
    ``pin``.

    Enter it to start the thread. :meth:`state` is the position of the next micro-batch that the caller gets, however
    far the thread has run ahead. Exceptions of the stream are raised in the caller.
    """

    def __init__(self, stream: PackStream, *, ahead: int = 2, pin: bool = False) -> None:
        self.stream, self.pin = stream, pin
        self._state = stream.state()
        self._ready: queue.Queue[tuple[MicroBatch, dict[str, int]] | BaseException] = queue.Queue(ahead)
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetcher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        while self._thread.is_alive():  # it may wait for room in the queue
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def __iter__(self) -> Iterator[MicroBatch]:
        while True:
            item = self._error or self._ready.get()
            if isinstance(item, BaseException):
                self._error = item  # the thread has ended: asking again must not wait for it
                raise item
            batch, self._state = item
            yield batch

    def state(self) -> dict[str, int]:
        """Return the position of the next micro-batch (:meth:`PackStream.state`)."""
        return dict(self._state)

    def step(self) -> list[MicroBatch]:
        """Return the micro-batches of the next optimizer step."""
        batches = []
        for batch in self:
            batches.append(batch)
            if batch.last:
                break
        return batches

    def _work(self) -> None:
        try:
            for batch in self.stream:
                if self.pin:
                    batch = MicroBatch(batch.pack.pinned(), batch.step, batch.last)
                self._put((batch, self.stream.state()))
                if self._stop.is_set():
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: tuple[MicroBatch, dict[str, int]] | BaseException) -> None:
        while not self._stop.is_set():
            try:
                return self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
