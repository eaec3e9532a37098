"""Tokenize a corpus: in parallel, up to a token budget, and kept for the next time."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from cbtrain.files import cache_folder
from cbtrain.tokens import cache
from cbtrain.tokens.cache import TokenStore
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.document import Document
from cbtrain.tokens.document_builder import Built, DocumentBuilder, Unit, place_of
from cbtrain.tokens.mask_check import check_dialogue, check_renderer

CHECKED_UNITS, CHECKED_MESSAGES = 3, 60
"""Units of a corpus on which the second method is run before anything is trained, and how much of each: it renders
the dialogue anew for every turn."""

Progress = Callable[[int, int], None]
"""Called with the units done and their number."""


@dataclass(frozen=True, slots=True)
class TokenizedCorpus:
    """``documents`` of ``units``, which hold ``words`` of the ``words_offered``.

    ``whole_tokens`` and ``paper_tokens`` are what an epoch of them costs when each unit is seen once, and by the 2024
    study's recipe: a record for every supervised turn with the whole history in each, in the same chat format (None
    where that cannot be said). ``cut`` counts units cut between turns, ``left_out`` tokens of turns that found no room
    as context in any piece. ``note`` says why the documents were not kept, if so.
    """

    documents: TokenStore
    units: list[Unit]
    words: int
    words_offered: int
    whole_tokens: int | None
    paper_tokens: int | None
    cut: int
    left_out: int
    note: str = ""

    @property
    def share(self) -> float:
        return self.words / self.words_offered if self.words_offered else 0.0

    def facts(self) -> dict[str, Any]:
        """What a report says of it."""
        store = self.documents
        return {
            "units": len(self.units),
            "units_cut": self.cut,
            "documents": len(store),
            "tokens_per_epoch": store.tokens,
            "supervised_per_epoch": int(store.supervised.sum()),
            "trimmed_tokens": int(store.arrays["trimmed"].sum()),
            "context_left_out_tokens": self.left_out,
            "whole_recipe_tokens_per_epoch": self.whole_tokens,
            "paper_recipe_tokens_per_epoch": self.paper_tokens,
        }


def tokenize(
    units: Sequence[Unit],
    builder: DocumentBuilder,
    *,
    budget: int | None = None,
    seed: int = 0,
    root: Path | None = None,
    progress: Progress = lambda done, of: None,
    check: int = CHECKED_UNITS,
) -> TokenizedCorpus:
    """Documents of ``units``, in an order drawn from ``seed``, until they hold ``budget`` tokens (none: of all, as they
    come).

    With ``root`` they are kept there, and taken from there where nothing that decides them has changed. Before anything
    is rendered, both methods of finding the supervised tokens must agree on the first ``check`` units. Raises UserError
    as :meth:`DocumentBuilder.build` does.
    """
    order = np.random.default_rng(seed).permutation(len(units)).tolist() if budget else list(range(len(units)))
    offered = sum(unit.words for unit in units)

    def selection(documents: TokenStore, facts: dict[str, Any], note: str = "") -> TokenizedCorpus:
        used = [units[index] for index in order[: facts["units"]]]
        words = sum(unit.words for unit in used)
        counts = (facts["whole_tokens"], facts["paper_tokens"], facts["cut"], facts["left_out"])
        return TokenizedCorpus(documents, used, words, offered, *counts, note)

    def render() -> tuple[TokenStore, dict[str, Any]]:
        wanted = [units[index] for index in order]
        _check_agreement(builder.renderer, wanted[:check], builder)
        return _render(wanted, builder, budget, progress)

    if root is None:
        return selection(*render())
    identity = _identity(units, builder, budget, seed)
    folder = root / cache.key_of(identity)
    with ExitStack() as stack:
        try:
            stack.enter_context(cache.only_one(folder))
            return selection(*cache.open_store(folder, identity))
        except cache.Damaged:
            note = ""  # or not made yet: either way it is made now
        except OSError as error:
            note = f"tokens are not kept in {root} ({error.strerror})"
        documents, facts = render()
        if not note:
            try:
                cache.remove_unused(root)
                cache.save(documents, folder, identity, facts)
                documents, facts = cache.open_store(folder, identity)  # mapped: the copy in memory may go
            except cache.Damaged as error:
                note = f"tokens are not kept in {root} ({error})"
            except OSError as error:
                note = f"tokens are not kept in {root} ({error.strerror})"
    return selection(documents, facts, note)


def cache_root(setting: str) -> Path | None:
    """The folder that ``tokens.cache`` names, None where nothing is to be kept."""
    if setting == "none":
        return None
    if setting != "auto":
        return Path(setting).expanduser() / "tokens"
    return cache_folder() / "tokens"


def _render(
    units: Sequence[Unit], builder: DocumentBuilder, budget: int | None, progress: Progress
) -> tuple[TokenStore, dict[str, Any]]:
    documents: list[Document] = []
    tokens = used = cut = left_out = 0
    whole: int | None = 0
    paper: int | None = 0
    for built in _build_all(units, builder):
        documents += built.documents
        tokens += sum(map(len, built.documents))
        paper = None if paper is None or built.paper_tokens is None else paper + built.paper_tokens
        cut += built.cut
        left_out += built.left_out
        whole = None if whole is None or built.whole_tokens is None else whole + built.whole_tokens
        used += 1
        progress(used, len(units))
        if budget and tokens >= budget:
            break
    facts = {"units": used, "whole_tokens": whole, "paper_tokens": paper, "cut": cut, "left_out": left_out}
    return TokenStore.of(documents), facts


def _build_all(units: Sequence[Unit], builder: DocumentBuilder) -> Iterator[Built]:
    """What each unit gives, in order; the tokenizer works outside Python's lock, so threads are enough."""
    workers = _cores()
    waiting: deque[Future[Built]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for unit in units:
                waiting.append(pool.submit(builder.build, unit))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _check_agreement(renderer: ChatRenderer, units: Sequence[Unit], builder: DocumentBuilder) -> None:
    if units:
        check_renderer(renderer)
    for unit in units:
        check_dialogue(renderer, builder.messages(unit)[:CHECKED_MESSAGES], place_of(unit))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _identity(units: Sequence[Unit], builder: DocumentBuilder, budget: int | None, seed: int) -> dict[str, Any]:
    """Everything that decides the tokens, by name, so that an error can say what differs."""
    content = blake2b(digest_size=16)
    for unit in units:
        for text in (unit.name, unit.system or "", *unit.last_summaries):
            content.update(text.encode() + b"\0")
        for session in unit.sessions:
            content.update(f"\1{session.id}\0{session.number}".encode())
            for turn in session.turns:
                content.update(b"\2" + turn.role.encode() + b"\0" + turn.text.encode())
    renderer = builder.renderer
    kept = builder.config.model_dump(mode="json", exclude={"therapist_system", "cache", "format"})
    policy = {
        **kept,
        "speaker": builder.speaker,
        "supervise": builder.supervise,
        "limit": builder.limit,
        "positions": builder.positions,
    }
    return {
        "content": content.hexdigest(),
        "tokenizer": _tokenizer_hash(renderer.tokenizer),
        "chat format": blake2b(renderer.format.template.encode(), digest_size=16).hexdigest(),
        "mask policy": policy,
        "selection": [budget, seed if budget else 0],
        "version": _code_hash(),
    }


@lru_cache(maxsize=1)
def _code_hash() -> str:
    """Of the code that decides tokens and weights: this room, what it takes from transcripts, and the libraries."""
    rooms = [importlib.resources.files("cbtrain.tokens"), importlib.resources.files("cbtrain.tokens") / "templates"]
    files = [file for room in rooms for file in room.iterdir() if file.name.endswith((".py", ".jinja"))]
    files.append(importlib.resources.files("cbtrain.transcripts") / "summary.py")
    digest = blake2b(digest_size=16)
    for file in sorted(files, key=lambda file: file.name):
        digest.update(file.read_bytes())
    for library in ("tokenizers", "transformers", "jinja2"):
        digest.update(f"{library} {importlib.metadata.version(library)}".encode())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _tokenizer_hash(tokenizer: Any) -> str:
    specials = [tokenizer.bos_token, tokenizer.eos_token, sorted(tokenizer.all_special_tokens)]
    return blake2b((tokenizer.backend_tokenizer.to_str() + repr(specials)).encode(), digest_size=16).hexdigest()
