"""Requests under way, and the parts of them that a forward pass reads."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from cbtrain.generation.answer_text import AnswerText
from cbtrain.generation.cache import Slot
from cbtrain.generation.json_guide import JsonGuide
from cbtrain.generation.request import Completion, Listener, Request
from cbtrain.generation.sampling.draw import Draw, TokenLogprobs


@dataclass(slots=True, eq=False)
class Running:
    """A request under way. Its tokens are the prompt's and the answer's; ``slot`` holds those that have been read."""

    request: Request
    future: Future[Completion]
    digest: str
    draw: Draw
    text: AnswerText | None
    guide: JsonGuide | None
    listener: Listener | None
    slot: Slot | None = None
    cached: int = 0
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)

    @property
    def unread(self) -> int:
        return len(self.request.prompt) + len(self.ids) - len(self.held.tokens)

    @property
    def held(self) -> Slot:
        assert self.slot is not None
        return self.slot

    def next_tokens(self, count: int) -> list[int]:
        begin, prompt = len(self.held.tokens), self.request.prompt
        return [*prompt[begin : begin + count], *self.ids[max(0, begin - len(prompt)) :]][:count]


@dataclass(frozen=True, slots=True)
class Part:
    """``length`` tokens of ``run`` in a forward pass; the last part of what is ``unread`` gives the next token."""

    run: Running
    length: int

    @property
    def last(self) -> bool:
        return self.length == self.run.unread
