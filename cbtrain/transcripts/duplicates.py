"""Sessions that repeat another one: exactly, or nearly.

Similarity is the Jaccard index of two sessions' sets of 5-word shingles, estimated from bottom-k sketches (Broder,
"On the resemblance and containment of documents", 1997; Cohen & Kaplan 2007): the ``k`` smallest hashes of a set are a
uniform sample of it, and the share of the ``k`` smallest hashes of the union that stand in both sets estimates the
index with a standard error of at most ``0.5 / sqrt(k)``.

A session costs ``8 (k + 1)`` bytes, whatever its length: 100,000 sessions are some 100 MB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from cbtrain.text.words import HAN, HIRAGANA
from cbtrain.transcripts.cleaning import fingerprint_of
from cbtrain.transcripts.preference import all_turns
from cbtrain.transcripts.types import Session, Turn

SKETCH = 128
PROBES = 24
"""Smallest hashes by which pairs are found: a pair that shares fewer than a third of what its threshold lets expect is
not compared. At 0.5 that passes over a true pair about once in 7,000 times."""
SHINGLE = 5
CROWD = 512
"""Sessions with one hash in common beyond which it is taken for boilerplate: each is compared with few of them."""
WORD = re.compile(rf"[{HAN}{HIRAGANA}]|[^\W{HAN}{HIRAGANA}]+")
"""A word, or a character of a script that does not separate words."""
MIX = np.uint64(0x9E3779B97F4A7C15)
NOTHING = np.empty(0, np.uint64)
SHORT, BATCH = 400, 256
"""Texts of at most so many words are sketched so many at a time."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Session ``index`` (in the order of adding) repeats ``other``, an earlier one; ``similarity`` is 1 if exactly."""

    index: int
    other: int
    similarity: float
    exact: bool


class DuplicateFinder:
    """Takes sessions one by one and keeps a sketch of each; sessions without words are no duplicates."""

    def __init__(self) -> None:
        self._hashes = _WordHashes()
        self._sketches: list[NDArray[np.uint64]] = []
        self._digests: list[bytes | None] = []
        self._short: list[tuple[int, list[int]]] = []
        """Short sessions without a sketch yet: their indices and the hashes of their words."""

    def add(self, session: Session) -> None:
        self._digests.append(fingerprint_of(session) if session.turns else None)
        words = self._words(all_turns(session))
        if SHINGLE <= len(words) <= SHORT:
            self._short.append((len(self._sketches), words))
            self._sketches.append(NOTHING)
            if len(self._short) == BATCH:
                self._sketch_short()
        else:
            self._sketches.append(sketch_of(words))

    def find(self, threshold: float) -> Iterator[Duplicate]:
        """For each session that repeats an earlier one, the earliest exact or the most similar one at or above
        ``threshold``."""
        best: dict[int, Duplicate] = {}
        for pair in self.pairs(threshold):
            if pair.index not in best or pair.similarity > best[pair.index].similarity:
                best[pair.index] = pair
        yield from (best[index] for index in sorted(best))

    def pairs(self, threshold: float) -> Iterator[Duplicate]:
        """Yield all pairs at or above ``threshold``; an exact copy is paired with the first of its kind only, which
        stands for it in all other pairs."""
        self._sketch_short()
        first: dict[bytes, int] = {}
        for index, digest in enumerate(self._digests):
            if digest is not None and first.setdefault(digest, index) != index:
                yield Duplicate(index, first[digest], 1.0, True)
        alone = [i for i, digest in enumerate(self._digests) if digest is not None and first[digest] == i]
        for later, earlier in self._candidates(alone, threshold):
            similarity = jaccard(self._sketches[later], self._sketches[earlier])
            if similarity >= threshold:
                yield Duplicate(later, earlier, similarity, False)

    def _candidates(self, alone: Sequence[int], threshold: float) -> Iterator[tuple[int, int]]:
        """Pairs (later, earlier) that share enough of their smallest hashes to be worth a comparison."""
        if len(alone) < 2:
            return
        hashes = np.concatenate([self._sketches[i][:PROBES] for i in alone])
        owners = np.repeat(np.array(alone, np.int32), [min(len(self._sketches[i]), PROBES) for i in alone])
        order = np.argsort(hashes, kind="stable")  # the owners of one hash stay in their order
        owners, hashes = owners[order], hashes[order]
        del order
        borders = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1], True])
        del hashes
        pairs: list[NDArray[np.int32]] = []
        for start in np.flatnonzero(np.diff(borders) > 1).tolist():
            group = owners[borders[start] : borders[start + 1]]
            pairs.append(group[_crowd(len(group)) if len(group) > CROWD else _all_pairs(len(group))])
        if not pairs:
            return
        size = len(self._sketches)
        later_ids, earlier_ids = np.concatenate(pairs, axis=1).astype(np.int64)
        coded, shared = np.unique(later_ids * size + earlier_ids, return_counts=True)
        for code, count in zip(coded.tolist(), shared.tolist(), strict=True):
            later, earlier = divmod(code, size)
            probes = min(PROBES, len(self._sketches[later]), len(self._sketches[earlier]))
            if count >= max(1, int(probes * threshold / 3)):
                yield later, earlier

    def _words(self, turns: Iterable[Turn]) -> list[int]:
        if len(self._hashes) > 2_000_000:  # bounded also where words never repeat
            self._hashes.clear()
        text = "\n".join(turn.text for turn in turns).lower()
        return list(map(self._hashes.__getitem__, WORD.findall(text)))

    def _sketch_short(self) -> None:
        for (index, _), sketch in zip(self._short, sketches_of([words for _, words in self._short]), strict=True):
            self._sketches[index] = sketch
        self._short.clear()


def sketch_of(words: Sequence[int]) -> NDArray[np.uint64]:
    """Return the smallest different hashes of the shingles of a text, in order; ``words`` are the hashes of its words.
    A text of fewer than :data:`SHINGLE` words is one shingle."""
    if not words:
        return NOTHING
    shingles = _shingles(np.array(words, np.uint64), min(SHINGLE, len(words)))
    if len(shingles) > 4 * SKETCH:  # repeats apart, these are the smallest; sorting them all costs more
        sketch = _smallest(np.partition(shingles, 4 * SKETCH)[: 4 * SKETCH])
        if len(sketch) == SKETCH:
            return sketch
    return _smallest(shingles)


def sketches_of(texts: Sequence[Sequence[int]]) -> Iterator[NDArray[np.uint64]]:
    """Yield :func:`sketch_of` of each text, which must have :data:`SHINGLE` words or more, in a few calls for all: for
    short texts numpy's calls cost more than its work."""
    if not texts:
        return
    lengths = np.array([len(words) for words in texts])
    shingles = _shingles(np.fromiter(chain.from_iterable(texts), np.uint64, int(lengths.sum())), SHINGLE)
    owners = np.repeat(np.arange(len(texts)), lengths)
    within = owners[: len(shingles)] == owners[SHINGLE - 1 :]  # no shingle of two texts
    shingles, owners = shingles[within], owners[: len(shingles)][within]
    order = np.lexsort((shingles, owners))
    shingles, owners = shingles[order], owners[order]
    different = np.r_[True, (shingles[1:] != shingles[:-1]) | (owners[1:] != owners[:-1])]
    shingles, owners = shingles[different], owners[different]
    borders = np.searchsorted(owners, np.arange(len(texts) + 1)).tolist()
    for begin, end in pairwise(borders):
        yield shingles[begin : min(end, begin + SKETCH)].copy()


def _shingles(words: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """Return a hash of every ``width`` words in a row."""
    shingles = np.zeros(len(words) - width + 1, np.uint64)
    for offset in range(width):
        shingles = (shingles ^ words[offset : offset + len(shingles)]) * MIX
        shingles ^= shingles >> np.uint64(29)
    return shingles


def _smallest(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the smallest different hashes in order, as an array of their own: a view would keep all of them alive."""
    ordered = np.sort(hashes)
    different = np.empty(len(ordered), np.bool_)
    different[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=different[1:])
    smallest: NDArray[np.uint64] = ordered[different][:SKETCH].copy()
    return smallest


@lru_cache(maxsize=64)
def _all_pairs(size: int) -> NDArray[np.int64]:
    """Places ``[2, pairs]`` in a group, the later first."""
    return np.stack(np.tril_indices(size, -1)).astype(np.int64)


def _crowd(size: int) -> NDArray[np.int64]:
    """Return pairs of each index with its neighbours and the first few: a large family of copies stays connected."""
    pairs = {
        (first, second)
        for first in range(1, size)
        for second in (*range(min(4, first)), *range(max(0, first - 4), first))
    }
    return np.array(sorted(pairs), np.int64).T


def jaccard(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> float:
    """Return the estimate from two sketches (sorted, unique, uint64 ``[<= SKETCH]``); exact where both sets are
    small."""
    union = np.union1d(first, second)
    if max(len(first), len(second)) == SKETCH:
        union = union[:SKETCH]
    both = np.isin(union, first, assume_unique=True) & np.isin(union, second, assume_unique=True)
    return float(both.mean()) if len(union) else 0.0


class _WordHashes(dict[str, int]):
    """Each word's hash, computed when it is first asked for."""

    def __missing__(self, word: str) -> int:
        digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = value = int.from_bytes(digest, "big")
        return value
