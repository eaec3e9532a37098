"""Random schedules of an engine: sessions that arrive, take turns, are cancelled, evicted and resumed at random."""

import random
from dataclasses import dataclass

from adapter_values import randomize

from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.engine import GenerationEngine
from cbtrain.generation.request import Request
from cbtrain.model.adapters.methods import inject

ADAPTERS = (None, "a", "b")
GREEDY = SamplingConfig(temperature=0)
SAMPLINGS = (
    GREEDY,
    SamplingConfig(),
    SamplingConfig(temperature=1.3, top_p=1.0),
    SamplingConfig(temperature=1.0, top_k=20, min_p=0.01, repetition_penalty=1.2, frequency_penalty=0.3),
)


@dataclass(frozen=True)
class Session:
    """``opening`` and the words before each turn, as token ids; how long each answer may be."""

    number: int
    adapter: str | None
    sampling: SamplingConfig
    opening: tuple[int, ...]
    words: tuple[tuple[int, ...], ...]

    def request(self, answers):
        """The request for the turn after ``answers``."""
        turn = len(answers)
        prompt = list(self.opening)
        for words, answer in zip(self.words, [*answers, ()], strict=False):
            prompt += [*words, *answer]
        sampling = self.sampling.model_copy(update={"max_tokens": 3 + (self.number + turn) % 9})
        return Request(prompt, sampling, seed=100 * self.number + turn, adapter=self.adapter)


def sessions(count, vocabulary, turns=3):
    """``count`` sessions; those of every second number share a long opening, as a system prompt is shared."""
    drawn = random.Random(5)
    ids = lambda n: tuple(drawn.randrange(6, vocabulary) for _ in range(n))  # noqa: E731
    shared = ids(37)
    return [
        Session(
            number,
            ADAPTERS[number % 3],
            SAMPLINGS[number % len(SAMPLINGS)],
            shared if number % 2 else ids(drawn.randrange(1, 30)),
            tuple(ids(drawn.randrange(1, 20)) for _ in range(turns)),
        )
        for number in range(count)
    ]


def alone(make, session):
    """The answers of ``session``: each turn by an engine of its own that reads everything anew."""
    answers = []
    for _ in session.words:
        answers.append(make(slots=1).generate([session.request(answers)])[0].ids)
    return answers


def engine_maker(decoder, adapters, *, context=256, stop_ids=frozenset(), deterministic=False):
    """What makes engines on one decoder and its adapters, of given sizes."""

    def make(slots=3, prefill=2048):
        config = EngineConfig(slots=slots, context_tokens=context, prefill_tokens=prefill)
        engine = GenerationEngine(decoder, config, stop_ids=stop_ids, adapters=adapters)
        if deterministic:
            assert engine.be_deterministic().startswith("deterministic: ")  # how depends on the processor
        return engine

    return make


def play(make, pool, seed):
    """Play a random schedule with sessions of ``pool``; return their answers by number, and what has happened."""
    drawn = random.Random(seed)
    chosen = drawn.sample(pool, drawn.randrange(2, min(8, len(pool))))
    new = lambda: make(slots=drawn.randrange(1, 6), prefill=drawn.choice([16, 17, 40, 2048]))  # noqa: E731
    engine, happened = new(), {"cached": 0, "cancelled": 0, "resumed": 0, "steps": 0}
    answers = {session.number: [] for session in chosen}
    running = {}
    while any(len(answers[s.number]) < len(s.words) for s in chosen):
        for session in chosen:
            waits = session.number not in running and len(answers[session.number]) < len(session.words)
            if waits and drawn.random() < 0.4:
                running[session.number] = engine.submit(session.request(answers[session.number]))
        if running and drawn.random() < 0.08:  # asked again later, as after a client that has gone
            running.pop(drawn.choice(list(running))).cancel()
            happened["cancelled"] += 1
        if drawn.random() < 0.02:  # another process continues
            engine, running = new(), {}
            happened["resumed"] += 1
        engine.step()
        happened["steps"] += 1
        for number in [number for number, future in running.items() if future.done()]:
            done = running.pop(number).result()
            answers[number].append(done.ids)
            happened["cached"] += done.cached_tokens
    return answers, happened


def random_adapter(decoder, config, seed):
    """Give ``decoder`` an adapter far from its start, and return it."""
    adapter = inject(decoder, config, seed=seed)
    randomize(decoder, seed)
    return adapter
