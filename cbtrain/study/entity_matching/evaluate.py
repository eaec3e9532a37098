"""Ask a model about pairs, greedily, and score its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cbtrain.errors import UserError
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.engine import GenerationEngine
from cbtrain.generation.request import Request
from cbtrain.model.decoder import Decoder
from cbtrain.tasks.entity_matching.documents import question
from cbtrain.tasks.entity_matching.pair import Pair
from cbtrain.tasks.entity_matching.prompts import Prompt
from cbtrain.tasks.entity_matching.scoring import MatchingScores, score
from cbtrain.tokens.chat import ChatRenderer

ANSWER_TOKENS = 5
"""Longest answer, as published."""

GREEDY = SamplingConfig(temperature=0, max_tokens=ANSWER_TOKENS)

AT_ONCE = 64
"""Conversations in the key-value cache, at most."""

BLOCK = 256
"""Pairs that are asked and handed on together."""

Progress = Callable[[int, int], None]
"""Called with the number of pairs that are answered and of all pairs."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A decoder that answers, with the adapter that it has; chats are laid out by ``renderer``, and answers end at its
    stop tokens or ``stop_ids``."""

    decoder: Decoder
    renderer: ChatRenderer
    stop_ids: frozenset[int] = frozenset()

    def answers(self, pairs: Sequence[Pair], prompt: Prompt) -> Iterator[list[str]]:
        """Yield the answers to ``pairs``, in order, :data:`BLOCK` at a time. Raises UserError on a pair that cannot be
        laid out, and on one for which the model has too few positions, before the first is asked."""
        prompts = [self.renderer.prompt(question(pair, prompt), pair.id) for pair in pairs]
        context, positions = max(map(len, prompts)) + ANSWER_TOKENS, self.decoder.architecture.context
        if context > positions:
            name = max(zip(map(len, prompts), pairs, strict=True), key=lambda entry: entry[0])[1].id
            problem = f"the pair needs {context:,} tokens with its answer, and the model has {positions:,} positions"
            raise UserError(problem, where=name, hint="Shorten its records, or take a model with a longer context.")
        sizes = EngineConfig(context_tokens=max(64, context), slots=min(AT_ONCE, len(pairs)))
        stop_ids = self.stop_ids | self.renderer.stop_ids
        engine = GenerationEngine(self.decoder, sizes, stop_ids=stop_ids, tokenizer=self.renderer.tokenizer)
        stop = tuple(self.renderer.format.stop_strings)
        requests = [Request(ids, GREEDY, 0, stop=stop) for ids in prompts]
        for first in range(0, len(requests), BLOCK):
            with _as_it_is(self.decoder):
                completions = engine.generate(requests[first : first + BLOCK])
            yield [completion.text for completion in completions]


@contextmanager
def _as_it_is(decoder: Decoder) -> Iterator[None]:
    """Inside, ``decoder`` passes for one without an adapter, which the engine wants: its adapter's modules stay in
    their places and compute, and none is mounted beside them."""
    adapter, training = decoder.adapter, decoder.training
    decoder.eval().adapter = None
    try:
        yield
    finally:
        decoder.adapter = adapter
        decoder.train(training)


def evaluate_matching(
    decoder: Decoder,
    renderer: ChatRenderer,
    pairs: Sequence[Pair],
    prompt: Prompt,
    progress: Progress = lambda done, of: None,
) -> MatchingScores:
    """Return the scores of ``decoder``, with the adapter that it has, on ``pairs``. Raises UserError as
    :meth:`Asked.answers`, and if there are no pairs."""
    if not pairs:
        raise UserError("there are no pairs to evaluate on", hint="Name a part that has some.")
    answers: list[str] = []
    for block in Asked(decoder, renderer).answers(pairs, prompt):
        answers += block
        progress(len(answers), len(pairs))
    return score([pair.label for pair in pairs], answers)
