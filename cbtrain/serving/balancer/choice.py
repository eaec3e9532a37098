"""Which process answers a conversation: always the same one, which has read its beginning."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from cbtrain.serving.balancer.worker import Worker

OPENING = 256
"""Characters or tokens of a text to continue that stand for its beginning."""
LOAD = 1.5
"""A process has at most this many times its fair share of the answers under way, and one more."""


def conversation_key(body: Mapping[str, Any]) -> bytes:
    """Return what stays the same through a conversation: the model, and its messages up to the first of the user. Of a
    text that is to be continued, the beginning."""
    messages, opening = body.get("messages"), []
    if isinstance(messages, list):
        for message in messages:
            opening.append(message)
            if isinstance(message, dict) and message.get("role") == "user":
                break
    else:
        prompt = body.get("prompt")
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            prompt = prompt[0]
        opening.append(prompt[:OPENING] if isinstance(prompt, str | list) else None)
    return json.dumps([body.get("model"), opening], sort_keys=True).encode()


def preferred(key: bytes, workers: Sequence[Worker]) -> list[Worker]:
    """Return ``workers`` in the order in which they should answer the conversation ``key``.

    Rendezvous hashing (Thaler and Ravishankar 1998): if one is gone, only its conversations move. One that has more
    than its share comes last (bounded loads, Mirrokni et al. 2016): conversations that all begin alike do not wait in
    one queue.
    """
    most = math.ceil(LOAD * (sum(worker.under_way for worker in workers) + 1) / max(1, len(workers))) + 1
    ranked = sorted(workers, key=lambda worker: blake2b(key + worker.name.encode(), digest_size=8).digest())
    ranked.sort(key=lambda worker: worker.under_way >= most)
    return ranked
