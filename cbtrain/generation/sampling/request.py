"""What is known of one request when its next token is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.sampling.history import TokenCounts
from cbtrain.generation.sampling.noise import key, seed_state


class Draw:
    """What the next token of one request is drawn with: settings, seed, position in the answer, and counts of tokens.

    ``prompt`` are its token ids. ``stop_ids`` are forbidden while the answer has fewer than ``config.min_tokens``.
    ``logit_bias`` is added to the logits of its token ids; minus infinity forbids one. ``logprobs`` asks for the
    logarithm of the drawn token's probability, and of as many alternatives. Raises ValueError if a bias is NaN or plus
    infinity.
    """

    def __init__(
        self,
        config: SamplingConfig,
        seed: int,
        prompt: Sequence[int],
        *,
        stop_ids: frozenset[int] = frozenset(),
        logit_bias: Mapping[int, float] | None = None,
        logprobs: int | None = None,
    ) -> None:
        self.config, self.stop_ids, self.logprobs = config, stop_ids, logprobs
        self.logit_bias = dict(logit_bias or {})
        if wrong := [token for token, bias in self.logit_bias.items() if not bias < math.inf]:
            raise ValueError(f"logit_bias: the bias of token {wrong[0]} must be a finite number, or minus infinity")
        self.position = 0
        penalties = (config.repetition_penalty != 1, config.presence_penalty, config.frequency_penalty)
        # Presence and frequency do not ask for the prompt.
        counted = prompt if config.repetition_penalty != 1 else ()
        self.counts = TokenCounts(counted) if any(penalties) else None
        self._state = seed_state(seed)

    def add(self, token: int) -> None:
        """Count ``token`` as the answer's next and move to the position after it."""
        self.position += 1
        if self.counts is not None:
            self.counts.add(token)

    @property
    def key(self) -> int:
        """The noise's key at this position: a signed 64-bit integer."""
        return key(self._state, self.position)
