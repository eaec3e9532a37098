"""Our own server in a process of its own, for as long as a block runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cbtrain.errors import UserError

START_TIMEOUT_S = 300


@asynccontextmanager
async def server_process(arguments: list[str], log: Path) -> AsyncIterator[str]:
    """Run ``cbtrain serve ARGUMENTS`` and yield its base URL once it listens.

    It ends with the block, and also when this process dies, because it watches its standard input; it ignores the
    signals that a terminal or SLURM sends to both processes. Its errors go to ``log``. Raises UserError with its last
    line if it does not come up.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cbtrain.cli.main", "serve", *arguments, "--with-parent"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)
        except asyncio.TimeoutError:
            line = b""
        if not line.startswith(b"listening on "):
            raise UserError(f"the server did not start: {_last_line(log)}", where=log)
        yield line.decode().split()[-1]
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
