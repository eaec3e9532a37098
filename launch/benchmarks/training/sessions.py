"""The sessions that every system trains on, as token ids, and in which optimizer step each of them is."""

from __future__ import annotations

import hashlib
import json
import os
import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training.rows import Plan
from cbtrain.errors import UserError
from cbtrain.tokens import cache
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.config import TokensConfig
from cbtrain.tokens.dialogue import system_prompts
from cbtrain.tokens.document import Document
from cbtrain.tokens.document_builder import DocumentBuilder, units_of
from cbtrain.tokens.pack import Pack, build_pack
from cbtrain.tokens.packing import plan_packs
from cbtrain.tokens.tokenize import tokenize
from cbtrain.tokens.tokenizer import save_tokenizer, train_tokenizer
from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Corpus, Course, Role, Session, Turn

MOST_SESSIONS = 200
"""Sessions of a corpus that are tokenized at most."""

PER_STEP = 2
"""Sessions of a step: a trainer that takes them one by one has as many micro-batches in every step."""

LONGEST_TURNS: tuple[tuple[Role, int], ...] = (("patient", 80), ("therapist", 120))
"""Speakers of made-up sessions, in turn, and the most words of a turn."""

DOCUMENTS, STEPS, BASE = "documents", "steps.json", "base"


@dataclass(frozen=True, slots=True)
class Work:
    """``steps`` are lists of indices into ``documents``; ``source`` says in words what was tokenized."""

    documents: TokenStore
    steps: list[list[int]]
    pack_tokens: int
    source: str
    digest: str

    def pack(self, step: int) -> Pack:
        """Return the sessions of a step as one pack."""
        return build_pack([self.documents[index] for index in self.steps[step]])

    @property
    def tokens(self) -> list[int]:
        """Number of tokens of each step."""
        return [int(self.documents.lengths[step].sum()) for step in self.steps]

    @property
    def supervised(self) -> list[int]:
        """Number of supervised tokens of each step."""
        return [int(self.documents.supervised[step].sum()) for step in self.steps]

    def as_course(self, tokens: int) -> Work:
        """Return two steps of one document of so many tokens: the sessions end to end, repeated as needed."""
        ids, weights = (
            np.resize(np.concatenate(parts), tokens)
            for parts in zip(*((d.ids, d.loss_weights) for d in self.documents), strict=True)
        )
        weights[-1] = 1  # a document ends with a supervised token
        store = TokenStore.of([Document("course", ids, weights)])
        return Work(store, [[0], [0]], tokens, f"{self.source}, end to end", self.digest)


def prepare(plan: Plan, folder: Path) -> None:
    """Write to ``folder`` what :func:`open_work` reads, and the tokenizer where the base will be.

    ``CORPUS`` names the transcripts; without it those of the sample are taken if they are long enough, else sessions
    are made up. Raises UserError if a named corpus has too few sessions of this length.
    """
    named = os.environ.get("CORPUS")
    source = named or "sample"
    tokenizer, store, skipped = _tokenized(read(source), plan)
    steps = _steps(store, plan)
    if len(steps) < plan.steps and named:
        problem = f"{len(steps)} packs of {PER_STEP} sessions of {plan.shortest:,} to {plan.longest:,} tokens"
        raise UserError(problem, where=f"CORPUS={named}", hint=f"{plan.steps} are needed: name a larger corpus.")
    if len(steps) < plan.steps:
        source = (
            f"made-up sessions, because those of the sample are not of {plan.shortest:,} to {plan.longest:,} tokens"
        )
        tokenizer, store, skipped = _tokenized(made_up(plan), plan)
        steps = _steps(store, plan)
        assert len(steps) >= plan.steps
    used = sorted(index for step in steps[: plan.steps] for index in step)
    chosen = TokenStore.of([store[index] for index in used])
    places = {index: place for place, index in enumerate(used)}
    facts: dict[str, Any] = {
        "steps": [[places[index] for index in step] for step in steps[: plan.steps]],
        "pack_tokens": plan.pack_tokens,
        "source": source,
    }
    if skipped:
        facts["source"] = f"{source} (without {len(skipped)} sessions that cannot be used: {skipped[0]})"
    content = b"".join(chosen.arrays[name].tobytes() for name in cache.ARRAYS) + json.dumps(facts["steps"]).encode()
    facts["digest"] = hashlib.sha256(content).hexdigest()[:12]
    cache.save(chosen, folder / DOCUMENTS, {}, {})
    (folder / STEPS).write_text(json.dumps(facts))
    save_tokenizer(tokenizer, folder / BASE)


def open_work(folder: Path) -> Work:
    facts: dict[str, Any] = json.loads((folder / STEPS).read_text())
    return Work(cache.open_store(folder / DOCUMENTS, {})[0], **facts)


def _tokenized(corpus: Corpus, plan: Plan) -> tuple[Any, TokenStore, list[str]]:
    """Return a tokenizer of the corpus, its sessions that are as long as the plan wants them, whole, and why others
    cannot be used."""
    corpus, _ = clean(corpus, CleaningPolicy())
    sessions = list(islice(corpus.sessions(), MOST_SESSIONS))
    texts = [turn.text for session in sessions for turn in session.turns]
    tokenizer = train_tokenizer(texts, plan.vocabulary, plan.longest)
    config, wanted = TokensConfig(), {session.id for session in sessions}
    builder = DocumentBuilder(ChatRenderer(tokenizer), "therapist", "therapist", config, 10**6, 10**6)
    units = [
        unit
        for course in corpus.courses
        for unit in units_of(course, config, system_prompts(course, "therapist", config))
        if unit.name in wanted
    ]
    tokenized = tokenize(units, builder, skip_bad=True)
    chosen = [document for document in tokenized.documents if plan.shortest <= len(document) <= plan.longest]
    return tokenizer, TokenStore.of(chosen), tokenized.skipped


def _steps(store: TokenStore, plan: Plan) -> list[list[int]]:
    """Return the packs of two sessions of one epoch."""
    packs = plan_packs(store.lengths, plan.pack_tokens, np.random.default_rng(0)).packs
    return [pack for pack in packs if len(pack) == PER_STEP]


def made_up(plan: Plan) -> Corpus:
    """Return sessions of made-up words, as frequent as words are (Zipf), with a fixed seed: turns of 20 to 120 words,
    the therapist's longer than the patient's."""
    drawn = random.Random(0)
    syllables = [a + b for a in "bdfglmnprst" for b in ("a", "e", "i", "o", "u", "an", "el", "or")]
    words = ["".join(drawn.choices(syllables, k=drawn.choice([1, 2, 2, 3]))) for _ in range(plan.vocabulary // 3)]
    shares = [1 / rank for rank in range(1, len(words) + 1)]
    sessions = []
    for number in range(6 * plan.steps):
        # A word is one token at most times, and a turn has some more; sessions of another length are left out.
        left, turns = drawn.uniform(0.9 * plan.shortest, 0.8 * plan.longest), []
        scale = min(1.0, plan.shortest / 1000)
        while left > 0:
            for role, longest in LONGEST_TURNS:
                count = max(2, round(scale * drawn.randint(20, longest)))
                turns.append(Turn(role, " ".join(drawn.choices(words, shares, k=count)).capitalize() + "."))
                left -= count
        sessions.append(Session("made-up", number + 1, tuple(turns)))
    return Corpus("made up", "made up", (Course("made-up", tuple(sessions)),))
