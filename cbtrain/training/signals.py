"""Stop on a signal, all ranks at the same step, with everything saved.

SIGTERM, SIGINT (Ctrl-C), SIGUSR1 (what SLURM can send before a time limit) and SIGHUP (a lost login) ask for it. A
second Ctrl-C, two seconds later or more, ends the process at once. Checkpoints are written under another
name and renamed, so that this damages none.
"""

from __future__ import annotations

import datetime
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from cbtrain.errors import Stopped
from cbtrain.stopping import SIGNALS, end_now, restore_handlers, set_handlers
from cbtrain.training import distributed

SAME_PRESS = 2.0
"""Seconds in which a second SIGINT is taken for the same Ctrl-C: torchrun passes on what the terminal has already sent
to every process."""


class StopSignals:
    """Inside the ``with``, signals are heard. :meth:`asked` must be called by every rank at the same places.

    Ranks agree without waiting for each other or for a device: each call collects what the call before it has sent
    round, so a signal is obeyed one call later than it came. ``on_heard`` gets the name of the first at once.
    """

    def __init__(self, timeout_minutes: float, on_heard: Callable[[str], None] = lambda name: None) -> None:
        self._on_heard = on_heard
        self.heard: str | None = None
        self._at = 0.0
        self._before: dict[int, Any] = {}
        timeout = datetime.timedelta(minutes=timeout_minutes)
        self._group = dist.new_group(backend="gloo", timeout=timeout) if distributed.world() > 1 else None
        self._flags = torch.zeros(2, dtype=torch.int64)
        self._sent: Any = None
        self._agreed = [0, 0]

    def __enter__(self) -> StopSignals:
        self._before = set_handlers(SIGNALS, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Stopped):
            self._collect()
        restore_handlers(self._before)

    def asked(self, *, save: bool = False) -> bool:
        """Return whether to stop here. With ``save`` the leading rank proposes to save at the next end of a step."""
        if self._group is None:
            self._agreed = [int(self.heard is not None), int(save or self._agreed[1])]
            return self.heard is not None
        self._collect()
        number = getattr(signal, self.heard) if self.heard else 0
        self._flags = torch.tensor([int(number), int(save)])
        self._sent = dist.all_reduce(self._flags, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return self._agreed[0] > 0

    def late(self) -> bool:
        """Return whether any rank has heard a signal by now; waits for the others. For a stage's end, when nobody asks
        any more."""
        number = getattr(signal, self.heard) if self.heard else 0
        flag = torch.tensor([int(number)])
        if self._group is not None:
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group)
        self._agreed[0] = max(self._agreed[0], int(flag))
        return self._agreed[0] > 0

    def save_agreed(self) -> bool:
        """Return whether all ranks have heard that the leading one wants to save; asks once."""
        wanted, self._agreed[1] = bool(self._agreed[1]), 0
        return wanted

    @property
    def name(self) -> str:
        """The signal that stops the ranks."""
        return self.heard or signal.Signals(self._agreed[0]).name

    def _collect(self) -> None:
        if self._sent is not None:
            self._sent.wait()
            stop, save = self._flags.tolist()
            self._agreed = [max(self._agreed[0], stop), max(self._agreed[1], save)]
            self._sent = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.heard and name == "SIGINT" and time.monotonic() - self._at > SAME_PRESS:
            end_now("checkpoints on disk are whole")
        if self.heard is None:
            self.heard, self._at = name, time.monotonic()
            self._on_heard(name)
