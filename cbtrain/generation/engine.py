"""Continuous batching: every step reads new prompts and adds one token to every running conversation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from cbtrain.generation.cache import DecodeAttention, KVCache, PrefillAttention, Slot
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.sampler import sample
from cbtrain.model.decoder import Decoder

FinishReason = Literal["stop", "length"]


class ContextOverflow(ValueError):
    """The prompt leaves no room for an answer in the context."""


@dataclass(frozen=True, slots=True)
class Request:
    """``prompt`` token ids; ``adapter`` says whether the adapter takes part; equal seeds give equal draws."""

    prompt: Sequence[int]
    sampling: SamplingConfig
    seed: int
    adapter: bool = True
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """``ids`` without the stop token, their ``text``, and counts of prompt tokens (``cached`` were not recomputed)."""

    ids: list[int]
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int


@dataclass(slots=True)
class _Running:
    request: Request
    future: Future[Completion]
    generator: torch.Generator
    slot: Slot | None = None
    cached: int = 0
    ids: list[int] = field(default_factory=list)


class GenerationEngine:
    """Runs requests on one decoder. Not thread-safe: one thread calls :meth:`submit` and :meth:`step`.

    ``decode`` turns token ids to text. ``stop_ids`` end a turn.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: EngineConfig,
        *,
        stop_ids: frozenset[int],
        decode: Callable[[list[int]], str],
    ) -> None:
        self.decoder, self.config, self.stop_ids, self.decode = decoder.eval(), config, stop_ids, decode
        self.context = min(config.context_tokens, decoder.architecture.context)
        self.cache = KVCache(
            decoder.architecture, config.slots, self.context, decoder.dtype, decoder.device, decoder.attention
        )
        self.waiting: deque[_Running] = deque()
        self.running: list[_Running] = []

    def submit(self, request: Request) -> Future[Completion]:
        """Queue ``request``; the future holds its completion. Raises ContextOverflow if no token would fit."""
        if not request.prompt:
            raise ValueError("the prompt is empty")
        if len(request.prompt) >= self.context:
            raise ContextOverflow(f"{len(request.prompt)} prompt tokens leave no room in {self.context}")
        future: Future[Completion] = Future()
        generator = torch.Generator().manual_seed(request.seed & (2**63 - 1))
        self.waiting.append(_Running(request, future, generator))
        return future

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Run ``requests`` to their ends, in batches as slots allow; answers in their order."""
        futures = [self.submit(request) for request in requests]
        while not self.idle:
            self.step()
        return [future.result() for future in futures]

    @torch.inference_mode()
    def step(self) -> None:
        """Drop cancelled requests, admit waiting ones, read their prompts, then decode one token everywhere."""
        self._drop_cancelled()
        admitted = self._admit()
        decoding = self.running
        self.running = [*decoding, *admitted]
        for adapter, group in _by_adapter(admitted):
            self._forward(group, adapter, self._prefill)
        for adapter, group in _by_adapter(decoding):
            self._forward(group, adapter, self._decode)

    def _admit(self) -> list[_Running]:
        admitted: list[_Running] = []
        budget = self.config.prefill_tokens
        while self.waiting:
            slot = self.cache.acquire(self.waiting[0].request.prompt, self.waiting[0].request.adapter)
            if slot is None:
                break
            new = len(self.waiting[0].request.prompt) - len(slot.tokens)
            if admitted and new > budget:
                self.cache.release(slot)
                break
            run = self.waiting.popleft()
            run.slot, run.cached = slot, len(slot.tokens)
            admitted.append(run)
            budget -= new
        return admitted

    def _forward(self, group: list[_Running], adapter: bool, advance: Callable[[list[_Running]], Tensor]) -> None:
        with self.decoder.with_adapter(adapter):
            logits = advance(group)
        for run, row in zip(group, logits, strict=True):
            self._extend(run, sample(row, run.request.sampling, run.generator))

    def _prefill(self, group: list[_Running]) -> Tensor:
        """Read each prompt after its cached part; logits ``[len(group), vocabulary]`` at each prompt's last token."""
        slots = [_slot(run) for run in group]
        starts = [len(slot.tokens) for slot in slots]
        new = [list(run.request.prompt[start:]) for run, start in zip(group, starts, strict=True)]
        lengths = [len(tokens) for tokens in new]
        positions = torch.cat([torch.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)])
        attend = PrefillAttention(self.cache, [slot.index for slot in slots], starts, lengths)
        ids = torch.tensor([token for tokens in new for token in tokens])
        hidden = self.decoder(ids.to(self.decoder.device), positions.to(self.decoder.device), attend)
        for slot, tokens in zip(slots, new, strict=True):
            slot.tokens += tokens
        last = torch.tensor(lengths).cumsum(0) - 1
        return self.decoder.logits(hidden[last.to(hidden.device)])

    def _decode(self, group: list[_Running]) -> Tensor:
        """Feed each conversation its newest token; return logits ``[len(group), vocabulary]``."""
        slots = [_slot(run) for run in group]
        positions = [len(slot.tokens) for slot in slots]
        attend = DecodeAttention(self.cache, [slot.index for slot in slots], positions)
        ids = torch.tensor([run.ids[-1] for run in group], device=self.decoder.device)
        hidden = self.decoder(ids, torch.tensor(positions, device=self.decoder.device), attend)
        for slot, run in zip(slots, group, strict=True):
            slot.tokens.append(run.ids[-1])
        return self.decoder.logits(hidden)

    def _extend(self, run: _Running, token: int) -> None:
        if token in self.stop_ids:
            self._finish(run, "stop")
            return
        run.ids.append(token)
        if run.request.stop:
            text = self.decode(run.ids)
            stop_positions = [text.index(s) for s in run.request.stop if s in text]
            if stop_positions:
                self._finish(run, "stop", text[: min(stop_positions)])
                return
        full = len(run.request.prompt) + len(run.ids) >= self.context
        if full or len(run.ids) >= run.request.sampling.max_tokens:
            self._finish(run, "length")

    def _finish(self, run: _Running, reason: FinishReason, text: str | None = None) -> None:
        self._release(run)
        text = self.decode(run.ids) if text is None else text
        completion = Completion(run.ids, text, reason, len(run.request.prompt), run.cached)
        if run.future.set_running_or_notify_cancel():
            run.future.set_result(completion)

    def _drop_cancelled(self) -> None:
        self.waiting = deque(run for run in self.waiting if not run.future.cancelled())
        for run in [run for run in self.running if run.future.cancelled()]:
            self._release(run)

    def _release(self, run: _Running) -> None:
        self.running.remove(run)
        self.cache.release(_slot(run))


def _slot(run: _Running) -> Slot:
    assert run.slot is not None
    return run.slot


def _by_adapter(runs: list[_Running]) -> list[tuple[bool, list[_Running]]]:
    ordered = sorted(runs, key=lambda run: run.request.adapter)
    return [(adapter, list(group)) for adapter, group in groupby(ordered, key=lambda run: run.request.adapter)]
