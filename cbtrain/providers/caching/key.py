"""What makes two requests the same one."""

from __future__ import annotations

import hashlib
import json

from cbtrain.providers.wires.wire import WireRequest


def request_key(made: WireRequest, sample: int = 0) -> str:
    """Hex digest of everything that decides an answer: address, body (whatever the order of its fields) and ``sample``,
    which tells apart the repeats of one request. Headers and with them the key have no part in it, nor has whether the
    answer comes in pieces."""
    made = made.whole or made
    canonical = json.dumps(
        [made.url, made.body, sample], sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()
