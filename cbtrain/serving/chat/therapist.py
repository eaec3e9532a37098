"""Ask a local model for an answer that Ctrl-C can stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.generation.request import Completion, Piece
from cbtrain.text.thinking import without_thinking
from cbtrain.tokens.dialogue import Message


@dataclass(slots=True)
class Heard:
    """An answer as far as it has come. ``completion`` is None while it comes, and if it was stopped; ``first_s`` and
    ``last_s`` are the seconds from the request to its first and its last tokens."""

    pieces: list[Piece] = field(default_factory=list)
    completion: Completion | None = None
    prompt_tokens: int = 0
    first_s: float = 0.0
    last_s: float = 0.0

    @property
    def ids(self) -> list[int]:
        return [token for piece in self.pieces for token in piece.ids]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def thinking(self) -> int:
        """Characters of thinking in the text."""
        return without_thinking(self.text)[1]

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer."""
        return self.prompt_tokens + len(self.ids)

    @property
    def per_second(self) -> float:
        """Tokens a second after those that came first, 0 if no others came."""
        later = sum(len(piece.ids) for piece in self.pieces[1:])
        return later / (self.last_s - self.first_s) if later else 0.0


class Therapist:
    """Answers with ``model``, which runs while this is entered (``with``), for a program without an event loop."""

    def __init__(self, model: LocalModel, sampling: SamplingConfig) -> None:
        self.model, self.sampling = model, sampling
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Therapist:
        self._loop.run_until_complete(self.model.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        under_way = asyncio.all_tasks(self._loop)  # if a signal has ended the program
        for task in under_way:
            task.cancel()
        if under_way:
            self._loop.run_until_complete(asyncio.wait(under_way))
        self._loop.run_until_complete(self.model.__aexit__(kind, error, trace))
        self._loop.close()

    def answer(
        self,
        messages: Sequence[Message],
        adapter: str | None,
        seed: int,
        heard: Heard,
        show: Callable[[str], None],
    ) -> None:
        """Put the answer of ``adapter`` (None: the base) into ``heard``, and ``show`` its text, while it comes. Ctrl-C
        ends it. Raises as :meth:`LocalModel.chat` and :meth:`LocalModel.complete`."""

        async def stream() -> None:
            request = await self.model.chat(messages, self.sampling, seed=seed, adapter=adapter)
            heard.prompt_tokens = len(request.prompt)
            started = time.perf_counter()
            async with aclosing(self.model.stream(request)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        heard.completion = piece
                        return
                    heard.last_s = time.perf_counter() - started
                    heard.first_s = heard.first_s or heard.last_s
                    heard.pieces.append(piece)
                    show(piece.text)

        self._until_interrupted(stream())

    def spoken(self, heard: Heard, adapter: str | None) -> tuple[str, tuple[int, ...]]:
        """Return the words of an answer without thinking, and its tokens, none if they do not give these words."""
        text, _ = without_thinking(heard.text)
        tokenizer = self.model.voice_of(adapter).renderer.tokenizer
        whole = tokenizer.decode(heard.ids, skip_special_tokens=True).strip() == text.strip()
        return text.strip(), tuple(heard.ids) if whole else ()

    def _until_interrupted(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        with self._interrupting(task), contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(task)

    @contextlib.contextmanager
    def _interrupting(self, task: asyncio.Task[None]) -> Iterator[None]:
        """Inside, Ctrl-C cancels ``task``."""
        self._loop.add_signal_handler(signal.SIGINT, task.cancel)
        try:
            yield
        finally:
            self._loop.remove_signal_handler(signal.SIGINT)
