"""Tokenize a corpus: in parallel, up to a token budget, with a cache on disk."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cbtrain.environment import usable_cores
from cbtrain.errors import UserError
from cbtrain.files import cache_folder, expanded
from cbtrain.tokens.cache import CacheEntry, TokenStore
from cbtrain.tokens.document import Document
from cbtrain.tokens.document_builder import BuiltUnit, DocumentBuilder, Unit, place_of
from cbtrain.tokens.mask_check import check_dialogue, check_renderer

CHECKED_UNITS, CHECKED_MESSAGES = 3, 60
"""Units of a corpus whose loss mask is checked by the second method before training, and messages of each: that method
renders the dialogue again for every turn."""

SKIP = "Or leave such sessions out: corpus.skip_bad=true."


class NothingUsable(UserError):
    """Not one unit can be used; the problem is that of the last one."""


Progress = Callable[[int, int], None]
"""Called with the number of units done and of all units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedCorpus:
    """``documents`` of ``units``: of so many of the ``units_offered`` as the budget holds, with ``words`` of the
    ``words_offered``.

    ``whole_tokens`` and ``paper_tokens`` are the tokens of one epoch by two recipes in the same chat format: each unit
    once, and the 2024 study's, a record for every supervised turn with the whole history in each (None if the recipe
    does not apply). ``truncated`` counts units cut between turns, ``dropped`` the tokens of turns for which no piece
    had room as context. ``skipped`` says of each unit that cannot be used why, and is not in ``units``. ``note`` says
    why the documents are not cached, if they are not.
    """

    documents: TokenStore
    units: list[Unit]
    units_offered: int
    words: int
    words_offered: int
    whole_tokens: int | None
    paper_tokens: int | None
    truncated: int
    dropped: int
    skipped: list[str]
    note: str = ""

    @property
    def tokens_offered(self) -> int:
        """Tokens of an epoch of every unit offered; estimated from the words unless all are in ``units``."""
        return round(self.documents.tokens / self.share) if self.share else 0

    @property
    def share(self) -> float:
        """Share of the offered words that are in ``units``."""
        return self.words / self.words_offered if self.words_offered else 0.0

    def describe(self) -> dict[str, Any]:
        """Return the counts that a report shows."""
        store = self.documents
        return {
            "units": len(self.units),
            "units_offered": self.units_offered,
            "units_skipped": len(self.skipped),
            "units_cut": self.truncated,
            "documents": len(store),
            "tokens_per_epoch": store.tokens,
            "tokens_offered": self.tokens_offered,
            "supervised_per_epoch": int(store.supervised.sum()),
            **({"pairs": int(store.pairs.sum())} if store.pairs.any() else {}),
            "trimmed_tokens": int(store.arrays["trimmed"].sum()),
            "context_left_out_tokens": self.dropped,
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
    skip_bad: bool = False,
) -> TokenizedCorpus:
    """Return the documents of ``units``: of all, in the given order, or with ``budget`` in an order drawn from ``seed``
    until they have that many tokens.

    ``root`` is the folder of the cache (None: no cache). Documents are read from there unless something that determines
    them has changed. Before a builder's first is rendered, both methods of finding the supervised tokens must agree on
    the first :data:`CHECKED_UNITS`. With ``skip_bad`` units that cannot be used are left out, and named. Raises
    NothingUsable if this is so of all, UserError if the methods do not agree, and without ``skip_bad`` like
    :meth:`DocumentBuilder.build`.
    """
    order = np.random.default_rng(seed).permutation(len(units)).tolist() if budget else range(len(units))
    ordered = [units[index] for index in order]
    note = ""

    def render() -> tuple[TokenStore, dict[str, Any]]:
        return _render(ordered, builder, budget, progress, skip_bad=skip_bad)

    if root is None:
        documents, counts = render()
    else:
        with CacheEntry(root, _identity(units, builder, budget, seed, skip_bad=skip_bad)) as entry:
            documents, counts = entry.read() or entry.write(*render())
        note = entry.problem
    skipped: dict[str, str] = counts["skipped"]  # by the unit's place; keys are texts in the cache's JSON
    used = [unit for place, unit in enumerate(ordered[: counts["units"]]) if str(place) not in skipped]
    words, words_offered = (sum(unit.words for unit in some) for some in (used, units))
    return TokenizedCorpus(
        documents=documents,
        units=used,
        units_offered=len(units),
        words=words,
        words_offered=words_offered,
        **{key: counts[key] for key in ("whole_tokens", "paper_tokens", "truncated", "dropped")},
        skipped=list(skipped.values()),
        note=note,
    )


def cache_root(setting: str) -> Path | None:
    """Return the cache's folder by the setting ``tokens.cache``, None for no cache."""
    if setting == "none":
        return None
    if setting != "auto":
        return expanded(setting) / "tokens"
    return cache_folder() / "tokens"


def _render(
    units: Sequence[Unit],
    builder: DocumentBuilder,
    budget: int | None,
    progress: Progress,
    *,
    skip_bad: bool,
) -> tuple[TokenStore, dict[str, Any]]:
    """Return the documents of ``units`` until they have ``budget`` tokens, and the counts of :class:`TokenizedCorpus`,
    with the number of units tried, and by their place among them those that were skipped."""
    if not builder.checked:
        _check_mask(units, builder, skip_bad=skip_bad)
        builder.checked = True
    documents: list[Document] = []
    tokens = done = truncated = dropped = 0
    whole_tokens: int | None = 0
    paper_tokens: int | None = 0
    skipped: dict[str, str] = {}
    for built in _build_all(units, builder):
        if isinstance(built, UserError):
            if not skip_bad:
                raise _with_hint(built)
            if len(skipped) + 1 == len(units):
                raise NothingUsable(built.what, where=built.where, hint=built.hint)
            skipped[str(done)] = f"{built.where}: {built.what}"
        else:
            documents += built.documents
            tokens += sum(map(len, built.documents))
            whole_tokens = _sum_known(whole_tokens, built.whole_tokens)
            paper_tokens = _sum_known(paper_tokens, built.paper_tokens)
            truncated += built.truncated
            dropped += built.dropped
        done += 1
        progress(done, len(units))
        if budget and tokens >= budget:
            break
    counts = {"whole_tokens": whole_tokens, "paper_tokens": paper_tokens, "truncated": truncated, "dropped": dropped}
    return TokenStore.of(documents), {"units": done, "skipped": skipped, **counts}


def _with_hint(error: UserError) -> UserError:
    hint = f"{error.hint.rstrip('.')}. {SKIP}" if error.hint else SKIP
    return UserError(error.what, where=error.where, hint=hint)


def _sum_known(total: int | None, count: int | None) -> int | None:
    return None if total is None or count is None else total + count


def _build(unit: Unit, builder: DocumentBuilder) -> BuiltUnit | UserError:
    """Return the documents of ``unit``, or why it has none."""
    try:
        return builder.build(unit)
    except UserError as error:
        return error


def _build_all(units: Sequence[Unit], builder: DocumentBuilder) -> Iterator[BuiltUnit | UserError]:
    """Yield :func:`_build` of each unit, in order. Threads help as far as the tokenizer lets go of Python's lock: in
    batches of texts it does, with one text it does not."""
    workers = usable_cores()
    waiting: deque[Future[BuiltUnit | UserError]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for unit in units:
                waiting.append(pool.submit(_build, unit, builder))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _check_mask(units: Sequence[Unit], builder: DocumentBuilder, *, skip_bad: bool) -> None:
    """Check the loss mask of the first units; with ``skip_bad`` of the first that can be used."""
    if units:
        check_renderer(builder.renderer)
    usable = (unit for unit in units if not skip_bad or not isinstance(_build(unit, builder), UserError))
    for unit in islice(usable, CHECKED_UNITS):
        check_dialogue(builder.renderer, builder.messages(unit)[:CHECKED_MESSAGES], place_of(unit))


def _identity(
    units: Sequence[Unit], builder: DocumentBuilder, budget: int | None, seed: int, *, skip_bad: bool
) -> dict[str, Any]:
    """Return everything that determines the tokens, by name, so that an error can say what differs."""
    content = blake2b(digest_size=16)
    for unit in units:
        for text in (unit.name, unit.system, *unit.last_summaries):
            content.update(text.encode() + b"\0")
        for session in unit.sessions:
            content.update(f"\1{session.id}\0{session.number}".encode())
            for turn in session.turns:
                content.update(b"\2" + turn.role.encode() + b"\0" + turn.text.encode())
                if turn.weight != 1:
                    content.update(b"\3" + repr(turn.weight).encode())
            if pair := session.preference:
                content.update(b"\4" + repr((pair.begin, pair.weight, pair.rejected)).encode())
    renderer = builder.renderer
    settings = builder.config.model_dump(mode="json", exclude={"system", "therapist_system", "cache", "format"})
    policy = {
        **settings,
        "speaker": builder.speaker,
        "supervise": builder.supervise,
        "limit": builder.limit,
        "positions": builder.positions,
        **builder.makes,
    }
    return {
        "content": content.hexdigest(),
        "tokenizer": tokenizer_digest(renderer.tokenizer),
        "chat format": blake2b(renderer.format.template.encode(), digest_size=16).hexdigest(),
        "mask policy": policy,
        "vocabulary": renderer.vocabulary,
        "selection": [budget, seed if budget else 0, *(["without bad units"] if skip_bad else [])],
        "version": _code_hash(),
    }


@lru_cache(maxsize=1)
def _code_hash() -> str:
    """Return a hash of the code that determines ids and weights: this package, summary.py and the libraries."""
    folders = [importlib.resources.files("cbtrain.tokens"), importlib.resources.files("cbtrain.tokens") / "templates"]
    files = [file for folder in folders for file in folder.iterdir() if file.name.endswith((".py", ".jinja"))]
    files.append(importlib.resources.files("cbtrain.transcripts") / "summary.py")
    digest = blake2b(digest_size=16)
    for file in sorted(files, key=lambda file: file.name):
        digest.update(file.read_bytes())
    for library in ("tokenizers", "transformers", "jinja2"):
        digest.update(f"{library} {importlib.metadata.version(library)}".encode())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def tokenizer_digest(tokenizer: Any) -> str:
    """Return a hash of everything that decides which ids ``tokenizer`` gives."""
    specials = [tokenizer.bos_token, tokenizer.eos_token, sorted(tokenizer.all_special_tokens)]
    return blake2b((tokenizer.backend_tokenizer.to_str() + repr(specials)).encode(), digest_size=16).hexdigest()
