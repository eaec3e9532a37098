"""One process with the model on one device, started again if it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from cbtrain.errors import UserError

COMMAND = (sys.executable, "-c", "from cbtrain.cli.main import entry; entry()")
LONGEST_PAUSE_S = 60.0
"""Between two starts of a process that keeps ending."""
STEADY_S = 60.0
"""After that long without an end, the pauses are short again."""
CLOSE_S = 40.0
"""Longer than the time that a process gives its last answers."""
PROBE_S = 5.0
"""Between two questions whether a process is well."""
PATIENCE = 3
"""Questions in a row that may stay without a good answer; then the process is killed, and started again."""
LONGEST_LINE = 2**20


class Worker:
    """Runs ``cbtrain`` with ``arguments``, a server, under the ``name`` of its device; ``say`` gets lines for a person:
    those of its standard error, before it serves only if it is ``talkative`` (the others say the same).

    ``url`` is where it listens, None while it does not; ``under_way`` counts the requests that it is answering.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        say: Callable[[str], None],
        *,
        talkative: bool = True,
    ) -> None:
        self.name, self.arguments, self.say, self.talkative = name, list(arguments), say, talkative
        self.environment = {**os.environ, **environment}
        self.url: str | None = None
        self.under_way = 0
        self.process: asyncio.subprocess.Process | None = None
        self._lines: asyncio.Task[str] | None = None

    async def start(self) -> None:
        """Start the process and wait until it listens. Raises UserError, with its own words, if it ends instead."""
        self.process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *self.arguments,
            stdin=asyncio.subprocess.PIPE,  # it ends when this closes, also if this process is killed
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
            limit=LONGEST_LINE,
            start_new_session=True,  # Ctrl-C is for this process, which ends the others in order
        )
        self._lines = asyncio.ensure_future(self._pass_on(self.process.stderr))
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if line.startswith(b"listening on "):
                self.url = line.split()[-1].decode().removesuffix("/v1")
                return
        await self.process.wait()
        raise UserError(await self._lines or "it ended without a word", where=self.name)

    async def keep(self, prepare: Callable[[str], Awaitable[None]]) -> None:
        """Start the process again whenever it ends, until cancelled; ``prepare`` gets the URL of each new one
        before any request does."""
        pause = 1.0
        while True:
            assert self.process is not None
            began = time.monotonic()
            status = await self.process.wait()
            self.url = None
            pause = 1.0 if time.monotonic() - began > STEADY_S else pause
            how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
            self.say(f"{self.name}: {how}; the others take its conversations. Starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            try:
                await self.start()
                url, self.url = self.url, None
                await prepare(url or "")
                self.url = url
                self.say(f"{self.name}: serves again")
            except Exception as error:  # whatever it was, the next start may be a better one
                self.say(f"{self.name}: {error}")
                if self.process.returncode is None:  # it listens, and is not as the others are
                    self.process.kill()

    async def watch(self, is_well: Callable[[str], Awaitable[bool]]) -> None:
        """Kill the process if ``is_well(url)`` is false several times in a row, until cancelled."""
        failures = 0
        while True:
            await asyncio.sleep(PROBE_S)
            url = self.url
            failures = failures + 1 if url and not await is_well(url) else 0
            if failures >= PATIENCE and self.process is not None and self.process.returncode is None:
                self.say(f"{self.name}: does not answer, or its engine has failed")
                self.url, failures = None, 0
                self.process.kill()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count a request while the body runs."""
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        """End the process: in order if it does so in time."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        if self.url is None:  # it has nothing to end, and would only look up once it listens
            process.kill()
        try:
            await asyncio.wait_for(process.wait(), CLOSE_S)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _pass_on(self, stream: asyncio.StreamReader | None) -> str:
        """Say each line of ``stream`` under the device's name; return the last one."""
        assert stream is not None
        last = ""
        while line := await _line(stream):
            text = line.decode(errors="replace").strip().rpartition("\r")[2]  # of a progress bar, its last state
            if text:
                last = text.removeprefix("cbtrain: ")
                if self.url or self.talkative:
                    self.say(f"{self.name}: {last}")
        return last


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line; one that is too long is left out."""
    while True:
        try:
            return await stream.readline()
        except ValueError:
            continue
