"""Continuous batching: every step reads prompts, a chunk at a time, and adds one token to every answer under way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.generation.answer_text import AnswerText
from cbtrain.generation.bad_request import check_request
from cbtrain.generation.cache import WORTH_COPYING, KVCache, common_prefix
from cbtrain.generation.config import EngineConfig
from cbtrain.generation.fixed_rows import fixed_sizes
from cbtrain.generation.json_guide import JsonGuide, JsonGuides, NotOfSchema
from cbtrain.generation.request import (
    AdapterDropped,
    BadRequest,
    Completion,
    FinishReason,
    Listener,
    Piece,
    Request,
    RequestFailed,
)
from cbtrain.generation.running import Part, Running
from cbtrain.generation.sampling.draw import Draw, Drawn, NothingAllowed, draw
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.attention.cached import CachedAttention, Chunk
from cbtrain.model.decoder import Decoder

GUIDES_KEPT = 16
"""Pairs of a tokenizer and stop tokens whose guides are kept."""


class GenerationEngine:
    """Runs requests on one decoder, with the adapters that are mounted on it. Not thread-safe: one thread calls it.

    ``tokenizer`` (a fast ``transformers`` one; None: no texts) turns tokens to text if a request brings none;
    ``stop_ids`` end every answer.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: EngineConfig,
        *,
        stop_ids: frozenset[int],
        tokenizer: Any = None,
        adapters: MountedAdapters | None = None,
    ) -> None:
        self.decoder, self.config, self.stop_ids, self.tokenizer = decoder.eval(), config, stop_ids, tokenizer
        self.adapters = adapters or MountedAdapters(decoder)
        self.cache = KVCache(decoder.architecture, config, decoder.dtype, decoder.device)
        self.context = self.cache.context
        self.vocabulary = decoder.architecture.vocabulary
        self._guides: dict[tuple[int, frozenset[int]], JsonGuides] = {}  # by tokenizer and stop tokens
        self._guides_lock = threading.Lock()
        self.sizes: tuple[int, ...] = ()
        self._tried: set[str] = set()
        self.waiting: deque[Running] = deque()
        self.running: list[Running] = []

    def submit(
        self, request: Request, listener: Listener | None = None, future: Future[Completion] | None = None
    ) -> Future[Completion]:
        """Queue ``request``; the future holds its completion, or RequestFailed. ``listener`` gets the pieces. Cancel
        the future to end the request.

        Raises ContextOverflow if no token of an answer would fit, and BadRequest on anything else that cannot be done.
        """
        tokenizer = request.tokenizer or self.tokenizer
        self.check(request)
        self._try_adapter(request.adapter)
        request = replace(request, prompt=list(request.prompt))
        stop_ids = self.stop_ids | request.stop_ids
        try:
            drawing = Draw(
                request.sampling,
                request.seed,
                request.prompt,
                stop_ids=stop_ids,
                logit_bias=request.logit_bias,
                logprobs=request.logprobs,
            )
            after = request.prompt if request.continues else ()
            text = None if tokenizer is None else AnswerText(tokenizer, request.stop, after)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        run = Running(
            request,
            future or Future(),
            self.adapters.digest(request.adapter),
            drawing,
            text,
            self.guide(request),
            listener,
        )
        self.waiting.append(run)
        return run.future

    def be_deterministic(self) -> str:
        """Compute every request's logits alike to the last bit, whatever else is in the batch or in the cache: forward
        passes have a fixed number of rows and one adapter, and each token's attention is computed alone. Return what
        that means here, for a note. Call it before the first request.

        Adapters that are mounted later are tried with their first request, which fails if they need other numbers.
        """
        self.sizes, self._tried = (), {""}
        sizes = [self._sizes(name) for name in (None, *self.adapters.names)]
        self._tried |= {self.adapters.digest(name) for name in self.adapters.names}
        self.sizes = tuple(sorted(set(sizes[0]).intersection(*sizes[1:]))) or (1,)
        if self.sizes == (1,):
            return "deterministic: rows depend on their neighbours here, so each token has a forward pass of its own"
        rows = ", ".join(map(str, self.sizes))
        return f"deterministic: forward passes of {rows} rows, one adapter at a time"

    def _sizes(self, adapter: str | None) -> tuple[int, ...]:
        with self.adapters.rows([(adapter, -1)]):
            return fixed_sizes(self.decoder, max_rows=self.config.prefill_tokens)

    def _try_adapter(self, adapter: str | None) -> None:
        """Keep the numbers of rows at which ``adapter`` is independent of its neighbours too."""
        digest = self.adapters.digest(adapter)
        if not self.sizes or self.sizes == (1,) or digest in self._tried:
            return
        common = tuple(size for size in self._sizes(adapter) if size in self.sizes)
        if not common:
            raise BadRequest(f"rows of the adapter {adapter!r} depend on their neighbours here: mount it at the start")
        self._tried.add(digest)
        self.sizes = common

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Run ``requests`` to their ends, in batches as slots allow; answers in their order."""
        futures = [self.submit(request) for request in requests]
        while not self.idle:
            self.step()
        return [future.result() for future in futures]

    def drop_adapter(self, name: str) -> None:
        """Unmount the adapter ``name``; requests for it that have not ended fail. Raises UserError on another name."""
        self.adapters.drop(name)
        self._fail_all_of(name)

    def replace_adapter(self, name: str, folder: str | Path, *, force: bool = False) -> None:
        """Mount the adapter in ``folder`` in place of ``name``, whose requests that have not ended fail. Raises
        UserError, and leaves all as it is, if it cannot be mounted."""
        self.adapters.replace(name, folder, force=force)
        self._fail_all_of(name)

    def _fail_all_of(self, name: str) -> None:
        for run in [*self.waiting, *self.running]:
            if run.request.adapter == name:
                self._fail(run, AdapterDropped(f"the adapter {name!r} has been dropped or replaced", "adapter"))

    def fail_all(self, error: Exception) -> None:
        """End every request with ``error``."""
        for run in [*self.waiting, *self.running]:
            self._fail(run, error)

    @torch.inference_mode()
    def step(self) -> None:
        """Drop cancelled requests, admit waiting ones, then read prompts and add a token to each answer."""
        self._drop_cancelled()
        self._admit()
        for batch in self._batches():
            self._advance(batch)

    def check(self, request: Request) -> None:
        """Raise ContextOverflow or BadRequest as :meth:`submit` would; schemas are looked at there. Any thread may
        ask."""
        has_text = (request.tokenizer or self.tokenizer) is not None
        check_request(request, self.context, self.vocabulary, self.adapters.names, has_text=has_text)

    def guide(self, request: Request) -> JsonGuide | None:
        """Return a guide to the schema of ``request``, None if it has none. Raises BadRequest on one that cannot be
        used. Any thread may ask: a schema that it compiles is ready for :meth:`submit`."""
        if request.schema is None:
            return None
        tokenizer, stop_ids = request.tokenizer or self.tokenizer, self.stop_ids | request.stop_ids
        with self._guides_lock:
            if (key := (id(tokenizer), stop_ids)) not in self._guides:
                if len(self._guides) >= GUIDES_KEPT:
                    self._guides.clear()
                self._guides[key] = JsonGuides(tokenizer, self.vocabulary, stop_ids)
            guides = self._guides[key]
        try:
            return guides.guide(None if request.schema is True else request.schema)
        except UserError as error:
            raise BadRequest(str(error), "schema") from None

    def _admit(self) -> None:
        for run in list(self.waiting):
            if all(slot.busy for slot in self.cache.slots):
                return
            if self._is_being_read(run):
                continue
            slot = self.cache.acquire(run.request.prompt, run.digest)
            assert slot is not None
            self.waiting.remove(run)
            run.slot, run.cached = slot, len(slot.tokens)
            self.running.append(run)

    def _is_being_read(self, run: Running) -> bool:
        """Return whether a long beginning of the prompt is just being read for another request: it waits, and copies
        it then."""
        prompt, digest = run.request.prompt, run.digest
        reading = [other.request.prompt for other in self.running if other.digest == digest and other.unread > 1]
        longest = max((common_prefix(other, prompt) for other in reading), default=0)
        return longest > WORTH_COPYING and longest >= self.cache.longest_shared(prompt, digest) + WORTH_COPYING

    def _batches(self) -> Iterator[list[Part]]:
        """Yield the parts of each forward pass of a step: answers first, then prompts within the budget; in the order
        of their adapters."""
        parts, budget = [], self.config.prefill_tokens
        for run in sorted(self.running, key=lambda run: run.unread > 1):
            length = run.unread if run.unread == 1 else min(run.unread, budget)
            budget -= length if run.unread > 1 else 0
            parts += [Part(run, length)] if length else []
        parts.sort(key=lambda part: part.run.request.adapter or "")
        if not self.sizes:
            yield parts
            return
        # One adapter a pass, and never more rows than the largest fixed size.
        for _, group in groupby(parts, key=lambda part: part.run.request.adapter):
            batch: list[Part] = []
            room = self.sizes[-1]
            for part in group:
                length = min(part.length, room)
                batch.append(Part(part.run, length))
                room -= length
                if not room:
                    yield batch
                    batch, room = [], self.sizes[-1]
            yield batch

    def _advance(self, batch: list[Part]) -> None:
        """Run a forward pass and draw the next tokens. If it fails, each request is tried alone: a defect of one is not
        the others'."""
        batch = [part for part in batch if part.run in self.running]
        if not batch:
            return
        try:
            answering, logits = self._read(batch)
        except Exception as error:
            if len(batch) == 1:
                self._fail(batch[0].run, error)
                return
            for part in batch:
                self._advance([part])
            return
        for run, drawn in zip(answering, self._drawn(answering, logits), strict=True):
            try:
                if isinstance(drawn, Exception):
                    raise drawn
                self._extend(run, drawn)
            except Exception as error:
                self._fail(run, error)

    def _drawn(self, runs: list[Running], logits: Tensor) -> Sequence[Drawn | Exception]:
        """Return what is drawn for ``runs`` from their rows of ``logits``, or what was wrong with one of them."""
        if not runs:
            return []
        try:
            allowed = [run.guide.allowed() if run.guide else None for run in runs]
            return draw(logits, [run.draw for run in runs], allowed)
        except Exception as error:
            if len(runs) == 1:
                return [error]
            return [self._drawn([run], row)[0] for run, row in zip(runs, logits.split(1), strict=True)]

    def _read(self, batch: list[Part]) -> tuple[list[Running], Tensor]:
        """Read the tokens of ``batch``; return the requests of which nothing is unread any more, and the logits ``[n,
        vocabulary]`` of their next tokens."""
        tokens = [part.run.next_tokens(part.length) for part in batch]
        chunks = [Chunk(p.run.held.index, len(p.run.held.tokens), p.length) for p in batch]
        positions = [position for c in chunks for position in range(c.start, c.end)]
        ids, count = [token for part in tokens for token in part], len(positions)
        padding = [0] * (self._size(count) - count)
        device, by_row = self.decoder.device, bool(self.sizes)
        attend = CachedAttention(
            self.cache.keys,
            self.cache.values,
            chunks,
            self.cache.window,
            backend=self.decoder.attention,
            by_row=by_row,
        )
        with self._rows(batch, [part.length for part in batch]):
            hidden = self.decoder(
                torch.tensor(ids + padding, device=device), torch.tensor(positions + padding, device=device), attend
            )
        last = [part for part in batch if part.last]
        ends = torch.tensor([part.length for part in batch]).cumsum(0) - 1
        rows = ends[[part.last for part in batch]].to(device)
        if not last:
            logits = hidden[:0]
        elif by_row:  # the head has a fixed number of rows as well
            with self._rows(batch, [-1]):
                logits = self.decoder.logits(hidden)[rows]
        else:
            with self._rows(last, [1] * len(last)):
                logits = self.decoder.logits(hidden[rows])
        # Only now: if anything above fails, the tokens are read again.
        for part, read in zip(batch, tokens, strict=True):
            part.run.held.tokens += read
        return [part.run for part in last], logits

    def _size(self, count: int) -> int:
        return next((size for size in self.sizes if size >= count), count)

    @contextmanager
    def _rows(self, batch: Sequence[Part], lengths: Sequence[int]) -> Iterator[None]:
        """Say which rows belong to which adapter."""
        if self.sizes or len({part.run.request.adapter for part in batch}) == 1:
            groups = [(batch[0].run.request.adapter, -1)]
        else:
            pairs = zip((part.run.request.adapter for part in batch), lengths, strict=True)
            groups = [
                (adapter, sum(length for _, length in group)) for adapter, group in groupby(pairs, key=lambda p: p[0])
            ]
        with self.adapters.rows(groups):
            yield

    def _extend(self, run: Running, drawn: Drawn) -> None:
        token, request = drawn.token, run.request
        if token in self.stop_ids or token in request.stop_ids:
            self._finish(run, "stop", token)
            return
        run.ids.append(token)
        run.draw.add(token)
        if run.guide:
            run.guide.accept(token)
        if drawn.logprobs:
            run.logprobs.append(drawn.logprobs)
        text = run.text.add(token) if run.text else ""
        if run.listener:
            run.listener(Piece([token], text, [drawn.logprobs] if drawn.logprobs else []))
        if run.text and run.text.stopped:
            self._finish(run, "stop")
        elif len(request.prompt) + len(run.ids) >= self.context or len(run.ids) >= request.sampling.max_tokens:
            self._finish(run, "length")

    def _finish(self, run: Running, reason: FinishReason, stopped_by: int | str | None = None) -> None:
        rest = run.text.finish() if run.text else ""
        if run.text and run.text.stop_string:  # the last characters may have completed one
            reason, stopped_by = "stop", run.text.stop_string
        if rest and run.listener:
            run.listener(Piece([], rest))
        self._release(run)
        text = run.text.text if run.text else ""
        prompt_tokens = len(run.request.prompt)
        completion = Completion(run.ids, text, reason, prompt_tokens, run.cached, stopped_by, run.logprobs)
        if run.future.set_running_or_notify_cancel():
            run.future.set_result(completion)

    def _fail(self, run: Running, error: Exception) -> None:
        self._release(run, failed=True)
        if run.future.set_running_or_notify_cancel():
            if isinstance(error, NothingAllowed | NotOfSchema):  # what was asked for leads there
                error = BadRequest(str(error))
            elif not isinstance(error, BadRequest):
                failure = RequestFailed(f"the request failed: {type(error).__name__}: {' '.join(str(error).split())}")
                failure.__cause__ = error
                error = failure
            run.future.set_exception(error)

    def _drop_cancelled(self) -> None:
        for run in [run for run in (*self.waiting, *self.running) if run.future.cancelled()]:
            self._release(run)

    def _release(self, run: Running, *, failed: bool = False) -> None:
        if run in self.waiting:
            self.waiting.remove(run)
        if run in self.running:
            self.running.remove(run)
            if failed:
                self.cache.discard(run.held, len(run.request.prompt) + len(run.ids))
            else:
                self.cache.release(run.held)
