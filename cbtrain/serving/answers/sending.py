"""Write to a client that may be gone or may not read."""

from __future__ import annotations

import asyncio

from aiohttp import web

from cbtrain.stopping import timeout

SEND_SECONDS = 60.0
"""In which a client must take what was sent; one that does not is cut off."""


class ClientGone(ConnectionResetError):
    """The client has left, or does not read."""


async def send(request: web.BaseRequest, response: web.StreamResponse, data: bytes | None) -> None:
    """Send ``data``, part of the ``response`` to ``request``; None ends it. Raises ClientGone."""
    try:
        async with timeout(SEND_SECONDS):
            await (response.write_eof() if data is None else response.write(data))
    except asyncio.TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ClientGone("the client does not read") from None
    except ConnectionError as error:
        raise ClientGone(str(error)) from None
