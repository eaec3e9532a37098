"""The process of one run of a comparison: it does a step, saves when it is asked to end, and ends with its parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from cbtrain.errors import Stopped, UserError
from cbtrain.stopping import stop_at_once

BAD_INPUT, STOPPED, DONE = 2, 75, 0

Step = Callable[[Path, Path, Console], None]
"""What is done with the file of a plan, in the folder of its run."""


def serve_step(steps: Mapping[str, Step]) -> NoReturn:
    """Do the step that the command line names (``STEP PLAN``), and leave the process. An error is one line on standard
    error."""
    status = _status(steps, sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # as `cbtrain` leaves


def _status(steps: Mapping[str, Step], words: list[str]) -> int:
    step, plan = words[0], Path(words[1])
    console = Console(file=sys.stdout, width=120)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with stop_at_once():
            steps[step](plan, plan.with_suffix(""), console)
    except UserError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return STOPPED
    return DONE


def _end_with_parent() -> None:
    """Wait until the process that started this one closes its end of the pipe, or is gone; then save and end."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
