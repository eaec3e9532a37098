"""Who may ask: programs on this machine, pages that were allowed, and holders of the key.

A web page that is open in a browser on the same machine can send requests to a local server, from its own origin or, by
DNS rebinding, under a name of its own. Browsers say where a request comes from, and to which host they believe it goes.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cbtrain.serving.errors import Refused

HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[^:\[\]]{1,253})(?::\d{1,5})?")
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Access:
    """``hosts`` are the names that a request's Host may have besides those of this machine (None: any, where a key
    protects the server). ``origins`` are those of web pages that may use it. ``key`` is what every request except
    ``/health`` must bring, or None."""

    hosts: frozenset[str] | None = LOCAL_NAMES
    origins: frozenset[str] = frozenset()
    key: str | None = None

    def check(self, headers: Mapping[str, str], path: str) -> None:
        """Raise Refused: 403 for another host or page, 401 without the key."""
        host = _without_port(headers.get("Host", ""))
        if self.hosts is not None and host and host not in self.hosts:
            problem = f"the host {host[:100]!r} is not this server; start it with --allow-host to use this name"
            raise Refused(403, problem, code="unknown_host")
        origin = headers.get("Origin")
        if origin is not None and origin not in self.origins:
            problem = f"pages of {origin[:100]!r} may not use this server; start it with --allow-origin to let them"
            raise Refused(403, problem, code="unknown_origin")
        # Requests without an Origin: pictures, scripts and links of other pages.
        if origin is None and headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise Refused(403, "other pages may not use this server", code="unknown_origin")
        if self.key is not None and path != "/health":
            self._check_key(headers)

    def _check_key(self, headers: Mapping[str, str]) -> None:
        assert self.key is not None
        scheme, _, sent = headers.get("Authorization", "").partition(" ")
        # Compared in a time that does not depend on how much of it is right.
        same = hmac.compare_digest(sent.strip().encode(errors="surrogateescape"), self.key.encode())
        if scheme.lower() != "bearer" or not same:
            problem = "the API key is missing" if not sent else "the API key is wrong"
            raise Refused(401, problem, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def for_page(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers that let a page read the answer; none unless its origin was allowed."""
        origin = headers.get("Origin")
        if origin not in self.origins:
            return {}
        return {
            "Access-Control-Allow-Origin": str(origin),
            # All that it asks for: clients send headers of their own, and the key protects what has to be.
            "Access-Control-Allow-Headers": headers.get(
                "Access-Control-Request-Headers", "Authorization, Content-Type"
            ),
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Expose-Headers": "Retry-After",
            "Access-Control-Max-Age": "600",
            "Vary": "Origin",
        }


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``, an address or a name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_port(host: str) -> str:
    """Return the name or address in a Host header, in lower case; all of it if what follows is no port."""
    host = host.lower()
    named = HOST.fullmatch(host)
    return named[1].rstrip(".") if named else host
