"""Say what went wrong: one line, from one process of those that run together."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from cbtrain.cli.exit_codes import BAD_INPUT
from cbtrain.cli.parser import rank

WAIT_SECONDS = 3.0
"""How long other ranks leave the first one to say the same. A fault of their own ends them after it."""


def complain(program: str, problem: str) -> int:
    """Print ``PROGRAM: PROBLEM`` to standard error and return the exit status of bad input.

    Of several ranks the first prints. ``torchrun`` ends with a report of its own: it shows the line there as the root
    cause, read from the file that it names for each rank. A rank that it stops meanwhile says nothing.
    """
    line, report = f"{program}: {problem}", os.environ.get("TORCHELASTIC_ERROR_FILE")
    if rank() == 0:
        print(line, file=sys.stderr, flush=True)
    else:
        time.sleep(WAIT_SECONDS)
        if not report:
            print(f"rank {rank()}: {line}", file=sys.stderr, flush=True)
    if report:
        content = {"message": {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}}
        Path(report).write_text(json.dumps(content), encoding="utf-8")
    return BAD_INPUT
