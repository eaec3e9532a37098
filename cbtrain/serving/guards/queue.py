"""How many answers may be asked for at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cbtrain.serving.errors import Refused


@dataclass(slots=True)
class Queue:
    """Counts answers under way and waiting; ``most`` at a time."""

    most: int
    now: int = 0
    closed: bool = False

    @contextmanager
    def place_for(self, count: int) -> Iterator[None]:
        """Hold ``count`` places while the body runs. Raises Refused: 429 if there are none, 400 if there never will be
        so many, 503 if the server is ending."""
        if self.closed:
            raise Refused(503, "the server is ending", code="ending", headers={"Connection": "close"})
        if count > self.most:
            raise Refused(400, f"{count} answers in one request: this server has places for {self.most}")
        if self.now + count > self.most:
            problem = f"the queue is full ({self.now} answers are asked for); try again later"
            raise Refused(429, problem, code="queue_full", headers={"Retry-After": "1"})
        self.now += count
        try:
            yield
        finally:
            self.now -= count
