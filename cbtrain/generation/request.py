"""What is asked of the engine, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cbtrain.generation.config import SamplingConfig

if TYPE_CHECKING:
    from cbtrain.generation.sampling.draw import TokenLogprobs

FinishReason = Literal["stop", "length"]


class BadRequest(ValueError):
    """A request that cannot be answered, and why; ``field`` of :class:`Request` is to blame, if it is known. Others are
    not affected."""

    def __init__(self, problem: str, field: str | None = None) -> None:
        super().__init__(problem)
        self.field = field


class ContextOverflow(BadRequest):
    """The prompt leaves no room for an answer in the context."""


class AdapterDropped(BadRequest):
    """The adapter of the request was dropped or replaced before its answer had ended: ask again."""


class RequestFailed(RuntimeError):
    """A defect ended this request. Others are not affected."""


@dataclass(frozen=True, slots=True)
class Request:
    """``prompt`` token ids, answered by ``adapter`` (None: the base). Equal seeds give equal draws.

    The answer ends at a token of ``stop_ids`` (beside the engine's own), before a text of ``stop``, or at
    ``sampling.max_tokens``. ``logit_bias`` is added to the logits of tokens; ``logprobs`` asks for the log-probability
    of each token and of so many likeliest ones. ``schema`` (JSON Schema; True: any object) makes the answer JSON.
    ``tokenizer`` (a fast ``transformers`` one; None: the engine's) turns tokens to text; the text of an answer that
    ``continues`` the prompt's words keeps a space between the two, which one that begins anew does not have.
    """

    prompt: Sequence[int]
    sampling: SamplingConfig
    seed: int
    adapter: str | None = None
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    schema: Mapping[str, Any] | Literal[True] | None = None
    tokenizer: Any = None
    continues: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer as it comes: newly drawn ``ids``, text that has become certain, and log-probabilities if they
    were asked for."""

    ids: list[int]
    text: str
    logprobs: list[TokenLogprobs] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Completion:
    """``ids`` without the stop token, their ``text`` (up to a stop string, if ``stopped_by`` names one), and counts of
    prompt tokens (``cached`` were not recomputed)."""

    ids: list[int]
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    stopped_by: int | str | None = None
    logprobs: list[TokenLogprobs] = field(default_factory=list)


Listener = Callable[[Piece], None]
"""Called with each piece by the engine's thread; it must return at once."""


def merged(pieces: Sequence[Piece]) -> Piece:
    """Return ``pieces`` as one."""
    return Piece(
        [token for piece in pieces for token in piece.ids],
        "".join(piece.text for piece in pieces),
        [entry for piece in pieces for entry in piece.logprobs],
    )
