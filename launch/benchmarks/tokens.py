"""Compare packing with TRL's on the same sessions, and measure how fast sessions are tokenized, planned and opened.

``python launch/benchmark.py tokens [PATH] [--model DIR] [--documents N]``
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.config import TokensConfig
from cbtrain.tokens.dialogue import system_prompts
from cbtrain.tokens.document_builder import DocumentBuilder, units_of
from cbtrain.tokens.packing import cost, fewest_packs, imbalance, plan_packs
from cbtrain.tokens.stream import PackStream
from cbtrain.tokens.tokenize import tokenize
from cbtrain.tokens.tokenizer import load_tokenizer, train_tokenizer
from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Corpus

VOCABULARY, RANKS = 32_000, 8
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one way of packing.

    ``lengths`` of the documents in each pack, share of the ranks' time spent ``waiting``, tokens and supervised tokens
    that are in no pack, documents ``cut``, ``seconds`` of planning.
    """

    lengths: list[list[int]]
    waiting: float
    lost: int
    supervised_lost: int
    cut: int
    seconds: float

    def print(self, name: str, capacity: int) -> None:
        tokens = sum(map(sum, self.lengths))
        slots = sum(max(capacity, sum(row)) for row in self.lengths)  # a longer document brings its own slots
        print(
            f"  {name:26} {len(self.lengths):7,} {tokens / slots:8.2%} {1 - tokens / slots:8.2%} {self.waiting:8.2%} "
            f"{self.lost:12,} {self.supervised_lost:16,} {self.cut:14,} {self.seconds:8.3f}"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py tokens", description=__doc__)
    parser.add_argument("path", nargs="?", default="sample", help="a corpus")
    parser.add_argument("--model", help="folder of a tokenizer (default: a BPE of 32,000 entries of the corpus)")
    parser.add_argument("--documents", type=int, default=1_000_000, help="made-up documents to plan packs for")
    parsed = parser.parse_args(arguments)
    corpus, _ = clean(read(parsed.path), CleaningPolicy())
    texts = [turn.text for session in corpus.sessions() for turn in session.turns]
    tokenizer = load_tokenizer(parsed.model) if parsed.model else train_tokenizer(texts, VOCABULARY, 10**6)
    store = _tokenize(corpus, sum(map(len, texts)), tokenizer)
    for capacity in (4_096, 8_192, 16_384, 32_768):
        _compare(store, capacity)
        if (store.lengths > capacity).any():
            _cut(corpus, tokenizer, store, capacity)
    _plan_many(parsed.documents)


def _tokenize(corpus: Corpus, characters: int, tokenizer: Any) -> TokenStore:
    config = TokensConfig()
    builder = DocumentBuilder(ChatRenderer(tokenizer), "therapist", "therapist", config, 10**6, 10**6)
    units = [
        unit
        for course in corpus.courses
        for unit in units_of(course, config, system_prompts(course, "therapist", config))
    ]
    with tempfile.TemporaryDirectory() as folder:
        tokenized, rendering = _timed(lambda: tokenize(units, builder, root=Path(folder)))
        _, opening = _timed(lambda: tokenize(units, builder, root=Path(folder)))
    description = tokenized.describe()
    print(
        f"{len(units):,} sessions, {characters / 1e6:.1f} M characters, {len(tokenizer):,} entries: "
        f"{description['tokens_per_epoch']:,} tokens in {rendering:.1f} s, opened again in {opening:.2f} s "
        f"({rendering / opening:.0f} x faster)"
    )
    whole, paper = description["whole_recipe_tokens_per_epoch"], description["paper_recipe_tokens_per_epoch"]
    print(
        f"tokens an epoch: {whole:,} with each session once, {paper:,} by the 2024 recipe ({paper / whole:.1f} x); "
        f"{description['supervised_per_epoch']:,} supervised, {description['trimmed_tokens']:,} trimmed"
    )
    return tokenized.documents


def _compare(store: TokenStore, capacity: int) -> None:
    """Print rows for this capacity: ours with every session whole (a longer one has a pack of its own), and TRL's."""
    print(f"\npacks of {capacity:,} tokens, {RANKS} ranks, one pack a rank and step")
    head = ("", "packs", "filled", "padding", "waiting", "tokens lost", "supervised lost", "documents cut", "seconds")
    print("  {:26} {:>7} {:>8} {:>8} {:>8} {:>12} {:>16} {:>14} {:>8}".format(*head))
    stream = PackStream(store, capacity, 0, packs_per_step=RANKS, world=RANKS)
    plan, seconds = _timed(lambda: stream.plan(0))
    packs = [pack for step in plan.steps for pack in step]
    lengths = [[int(store.lengths[i]) for i in pack] for pack in packs]
    lost, unlearnt = _lost(store, packs)
    row = Row(lengths, imbalance(plan.costs, RANKS), lost, unlearnt, 0, seconds)
    row.print(f"ours ({plan.method})", capacity)
    bound = fewest_packs(store.lengths, capacity)
    possible = np.minimum(store.lengths, capacity).sum() / (bound * capacity)
    print(f"  {'  no packing has fewer than':26} {bound:7,} {possible:8.2%}")
    for strategy in ("bfd", "bfd_split", "wrapped"):
        try:
            rows, seconds = _trl(store, capacity, strategy)
        except ImportError:
            print(f"  trl {strategy}: trl is not installed")
            continue
        lengths = [row["seq_lengths"] or [len(row["input_ids"])] for row in rows]
        costs = [float(cost(np.asarray(row)).sum()) for row in lengths]
        waiting = imbalance([costs[i : i + RANKS] for i in range(0, len(costs), RANKS)], RANKS)
        kept = sum(sum(row["mask"]) for row in rows)
        learnt = int(sum(document.supervised.sum() for document in store))
        lost = store.tokens - sum(map(sum, lengths))
        # A wrapped row ends in the middle of a document, nearly always.
        cut = len(rows) if strategy == "wrapped" else int((store.lengths > capacity).sum())
        Row(lengths, waiting, lost, learnt - kept, cut, seconds).print(f"trl {strategy}", capacity)


def _cut(corpus: Corpus, tokenizer: Any, whole: TokenStore, capacity: int) -> None:
    """Print the row of ours with documents cut between turns."""
    config = TokensConfig()
    builder = DocumentBuilder(ChatRenderer(tokenizer), "therapist", "therapist", config, capacity, 10**6)
    units = [
        unit
        for course in corpus.courses
        for unit in units_of(course, config, system_prompts(course, "therapist", config))
    ]
    tokenized = tokenize(units, builder)
    store = tokenized.documents
    stream = PackStream(store, capacity, 0, packs_per_step=RANKS, world=RANKS)
    plan, seconds = _timed(lambda: stream.plan(0))
    packs = [pack for step in plan.steps for pack in step]
    lengths = [[int(store.lengths[i]) for i in pack] for pack in packs]
    lost, unlearnt = _lost(store, packs)
    lost += tokenized.dropped
    unlearnt += int(whole.supervised.sum() - store.supervised.sum())
    row = Row(lengths, imbalance(plan.costs, RANKS), lost, unlearnt, 0, seconds)
    row.print("ours, cut between turns", capacity)
    repeated = store.tokens / whole.tokens - 1
    print(
        f"  {'':26} {repeated:.1%} more tokens: turns repeated as context in {len(store) - len(whole)} more documents"
    )


def _lost(store: TokenStore, packs: list[list[int]]) -> tuple[int, int]:
    """Return the numbers of tokens and of supervised tokens of ``store`` that are in no pack."""
    packed = [index for pack in packs for index in pack]
    tokens = store.tokens - int(store.lengths[packed].sum())
    return tokens, int(store.supervised.sum() - store.supervised[packed].sum())


def _trl(store: TokenStore, capacity: int, strategy: str) -> tuple[list[dict[str, Any]], float]:
    """Return TRL's rows, and the seconds of its packing alone."""
    from datasets import Dataset, disable_progress_bars
    from trl.data_utils import pack_dataset

    disable_progress_bars()
    rows = [{"input_ids": d.ids.tolist(), "mask": d.supervised.astype(int).tolist()} for d in store]
    dataset = Dataset.from_list(rows)
    with contextlib.redirect_stderr(io.StringIO()):
        packed, seconds = _timed(lambda: pack_dataset(dataset, capacity, strategy))
    return [{"seq_lengths": None, **row} for row in packed], seconds


def _plan_many(count: int) -> None:
    random = np.random.default_rng(0)
    lengths = np.clip(random.normal(4_600, 900, count), 300, 9_000).astype(np.int64)
    packing, seconds = _timed(lambda: plan_packs(lengths, 16_384, random))
    print(f"\n{count:,} made-up documents planned in {seconds:.1f} s on one core, {packing.fill:.2%} filled")


def _timed(step: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    result = step()
    return result, time.perf_counter() - started
