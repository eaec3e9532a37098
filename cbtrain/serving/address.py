"""The address of a server, taken before a model is loaded: what is wrong with it is said at once."""

from __future__ import annotations

import errno
import os
import socket

from cbtrain.errors import UserError


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to ``host`` and ``port`` (0: any free one), which does not listen yet. Raises UserError if
    the address is not this machine's, or is in use."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "Such as 127.0.0.1, for programs on this machine, or 0.0.0.0."
        raise UserError(f"{host!r} is not known ({reason})", where="--host", hint=hint) from None
    bound = socket.socket(family, kind)
    try:
        if os.name == "posix":  # a port whose last connections are just ending is free
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise cannot_listen(host, port, error) from None
    return bound


def cannot_listen(host: str, port: int, error: OSError) -> UserError:
    hints = {
        errno.EADDRINUSE: "Choose another --port, or stop what uses this one.",
        errno.EADDRNOTAVAIL: "Choose an address of this machine: --host.",
        errno.EACCES: "Ports below 1024 are the administrator's: choose another --port.",
    }
    hint = hints.get(error.errno or 0, "Choose another --host or --port.")
    return UserError(f"cannot listen there ({error.strerror or error})", where=f"{host}:{port}", hint=hint)
