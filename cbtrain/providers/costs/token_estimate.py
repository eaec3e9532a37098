"""How many tokens an API will count for a prompt: estimated before it is sent, corrected by the API's own counts."""

from __future__ import annotations

import json
import math

from cbtrain.providers.formats.api_format import WireRequest

BYTES_PER_TOKEN = 3
"""Fewer than most text has: an estimate that is rather too high."""

LONG_PROMPT = 500
"""Prompts of more tokens are used to estimate the API's tokens per byte; shorter ones what it adds to each prompt."""


class TokenEstimate:
    """Prompt tokens as one API counts them. The estimate only rises."""

    def __init__(self) -> None:
        self._factor, self._added = 1.0, 0

    def of(self, tokens: int) -> int:
        """Return how many tokens the API may count for a prompt of ``tokens`` by :func:`prompt_tokens`."""
        return round(tokens * self._factor) + self._added

    def learn(self, tokens: int, counted: int) -> None:
        """Raise the estimate if the API has ``counted`` more tokens than estimated for a prompt of ``tokens``."""
        if counted <= self.of(tokens):
            return
        if tokens > LONG_PROMPT:
            self._factor = (counted - self._added) / tokens
        else:
            self._added = math.ceil(counted - tokens * self._factor)


def prompt_tokens(wire_request: WireRequest) -> int:
    """Return the tokens of everything that is sent, the JSON schema included, estimated from its bytes."""
    return prompt_bytes(wire_request) // BYTES_PER_TOKEN


def prompt_bytes(wire_request: WireRequest) -> int:
    """Return the bytes of everything that is sent, the JSON schema included."""
    return len(json.dumps(wire_request.body, ensure_ascii=False).encode(errors="surrogatepass"))


def answer_tokens(wire_request: WireRequest) -> int:
    """Return the longest answer that the body allows, which ``extra_body`` may have set; 0 if it sets no limit."""
    config = wire_request.body.get("generationConfig")
    limits = [wire_request.body.get("max_tokens"), wire_request.body.get("max_completion_tokens")]
    limits.append(config.get("maxOutputTokens") if isinstance(config, dict) else None)
    return max((limit for limit in limits if isinstance(limit, int)), default=0)
