"""Listen, serve, and end in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from cbtrain.serving.address import cannot_listen
from cbtrain.serving.guards.connections import HEADER_SECONDS, Connections

BACKLOG = 1_024
"""Connections that the system keeps until they are accepted."""
ACCEPTED_AT_ONCE = 4
"""Connections that are accepted before others are looked after. asyncio takes as many as the backlog: a thousand new
ones, a third of a second."""
GRACE_SECONDS = 30.0
FILES = 65_536


async def serve(
    app: web.Application,
    bound: socket.socket,
    host: str,
    *,
    close: Callable[[], int] = lambda: 0,
    until_stdin_closes: bool = False,
) -> None:
    """Serve ``app`` at ``bound``, a socket of ``host``, until SIGTERM or SIGINT, or until standard input ends if a
    parent process holds its other side.

    Prints ``listening on URL`` once connections are accepted. At the end ``close`` is called, which returns how many
    answers are under way; nothing new is accepted, and they have some time; a second signal ends the process at once.
    Raises UserError if the port has been taken meanwhile.
    """
    _allow_many_files()
    # Hundreds of thousands of objects of libraries stay until the end: to look at all of them again takes 0.7 s, in
    # which nothing else runs.
    gc.collect()
    gc.freeze()
    async with listening(app, bound, host) as url:
        end = asyncio.to_thread(sys.stdin.buffer.read) if until_stdin_closes else _signal()
        print(f"listening on {url}/v1", flush=True)
        await end
        if under_way := close():
            text = f"ending: {under_way:,} answers under way have {GRACE_SECONDS:g} s; Ctrl-C again ends at once"
            print(text, file=sys.stderr, flush=True)


@asynccontextmanager
async def listening(
    app: web.Application,
    bound: socket.socket,
    host: str = "127.0.0.1",
    *,
    grace: float = GRACE_SECONDS,
    header_seconds: float = HEADER_SECONDS,
) -> AsyncIterator[str]:
    """Serve ``app`` at ``bound`` while the body runs, which gets its URL; then give requests under way ``grace``
    seconds. Raises UserError if the port has been taken meanwhile."""
    # A client that goes away cancels its handler, and with it the generation it waited for.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=grace)
    await runner.setup()
    listener: asyncio.Server | None = None
    try:
        assert runner.server is not None
        port = bound.getsockname()[1]
        try:
            listener = await _listen(Connections(runner.server, header_seconds=header_seconds), bound)
        except OSError as error:
            raise cannot_listen(host, port, error) from None
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        if listener is not None:
            listener.close()
        bound.close()
        with contextlib.suppress(asyncio.CancelledError):
            await runner.cleanup()


async def _listen(connections: Connections, bound: socket.socket) -> asyncio.Server:
    server = await asyncio.get_running_loop().create_server(connections, sock=bound, backlog=ACCEPTED_AT_ONCE)
    with bound.dup() as same:
        same.listen(BACKLOG)
    return server


def _signal() -> Awaitable[None]:
    """Listen for SIGTERM and SIGINT from now on; return what waits for one. A second one has its usual effect."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    with contextlib.suppress(NotImplementedError):  # no signals on this platform's loop
        for number in numbers:
            loop.add_signal_handler(number, heard.set)

    async def wait() -> None:
        await heard.wait()
        with contextlib.suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)

    return wait()


def _allow_many_files() -> None:
    """Raise the limit of open files, of which each connection is one, as far as this process may."""
    try:
        import resource
    except ImportError:  # not on this platform
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
