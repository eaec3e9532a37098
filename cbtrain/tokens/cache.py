"""Keep tokenized documents on disk: one folder of memory-mapped arrays for each corpus and its settings.

The folder's name is a hash of everything that determines its content: the sessions' texts, the tokenizer, the chat
format and the loss policy. It is written under a temporary name and then renamed, so that two processes can write it at
once. Each array has a checksum, so that damage is found when the folder is opened.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cbtrain.errors import UserError
from cbtrain.files import atomic_folder, file_digest
from cbtrain.tokens.document import Branches, Document

try:
    import fcntl
except ImportError:  # no file locks on this system: two processes may then do the same work twice
    fcntl = None  # type: ignore[assignment]

SCHEMA = "cbtrain.tokens/1"
INDEX = "index.json"
ARRAYS = ("ids", "offsets", "runs", "run_weights", "run_offsets", "trimmed", "branches", "names")
OURS = re.compile(r"\.?[0-9a-f]{32}(\..*)?")
"""Names of entries, of their locks, and of the temporary folders that an interrupted writer leaves."""

UNUSED_DAYS = 30
"""Entries not opened for this many days are removed when a new one is written."""


class Damaged(Exception):
    """Files of the cache are missing, or differ from those that were written."""


class TokenStore(Sequence[Document]):
    """Documents in flat arrays, in memory or mapped from files.

    ``ids`` int32 ``[N]`` holds all documents end to end, ``offsets`` int64 ``[D + 1]`` where each begins and ends. Loss
    weights are kept as runs of equal weight: ``runs`` int64 ``[R, 2]`` (first and last + 1, inside the document),
    ``run_weights`` float32 ``[R]``, ``run_offsets`` int64 ``[D + 1]``. ``trimmed`` int32 ``[D]``; ``names`` uint8, the
    names joined by newlines. ``branches`` float64 ``[D, 5]`` are the fields of :class:`Branches`, references NaN if
    they are not known; all 0 for a document that is no pair.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)
        self.lengths: NDArray[np.int64] = np.diff(arrays["offsets"])
        self.names = bytes(arrays["names"]).decode().split("\n") if len(self.lengths) else []
        runs, offsets = arrays["runs"], arrays["run_offsets"]
        # The first token of a document is never predicted.
        sizes = (runs[:, 1] - np.maximum(runs[:, 0], 1)).clip(min=0)
        self.supervised = _sums(sizes, offsets)
        """Number of tokens that the loss counts in each document, int64 ``[D]``."""
        self.weight_sums = _sums(sizes * arrays["run_weights"].astype(np.float64), offsets)
        """What each document adds to the divisor of the loss, float64 ``[D]``: the sum of its tokens' loss weights, or
        the weight of a pair."""
        self.pairs: NDArray[np.bool_] = arrays["branches"][:, 0] > 0
        """Which documents are pairs of answers, bool ``[D]``."""
        chosen, rejected = arrays["branches"][:, 0].astype(np.int64), arrays["branches"][:, 1].astype(np.int64)
        self.hidden = np.where(self.pairs, (rejected - chosen) * (self.lengths - rejected), 0)
        """Pairs of tokens of each document, one in either branch, that do not see each other, int64 ``[D]``."""
        self.weight_sums = np.where(self.pairs, arrays["branches"][:, 2], self.weight_sums)

    @classmethod
    def of(cls, documents: Sequence[Document]) -> TokenStore:
        """Hold ``documents`` in flat arrays."""
        runs, loss_weights, counts = [], [], []
        for document in documents:
            document_runs, values = _runs(document.loss_weights)
            runs.append(document_runs)
            loss_weights.append(values)
            counts.append(len(document_runs))
        return cls(
            {
                "ids": np.concatenate([d.ids for d in documents] or [np.zeros(0, np.int32)]).astype(np.int32),
                "offsets": np.cumsum([0, *(len(d) for d in documents)], dtype=np.int64),
                "runs": np.concatenate(runs or [np.zeros((0, 2), np.int64)]),
                "run_weights": np.concatenate(loss_weights or [np.zeros(0, np.float32)]).astype(np.float32),
                "run_offsets": np.cumsum([0, *counts], dtype=np.int64),
                "trimmed": np.asarray([d.trimmed for d in documents], dtype=np.int32),
                "branches": np.asarray([_of_branches(d.branches) for d in documents], np.float64).reshape(-1, 5),
                "names": np.frombuffer(
                    "\n".join(d.name.replace("\n", " ") for d in documents).encode(), dtype=np.uint8
                ),
            }
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        a = self.arrays
        ids = a["ids"][a["offsets"][index] : a["offsets"][index + 1]]
        loss_weights = np.zeros(len(ids), dtype=np.float32)
        runs = slice(a["run_offsets"][index], a["run_offsets"][index + 1])
        for (first, last), weight in zip(a["runs"][runs].tolist(), a["run_weights"][runs].tolist(), strict=True):
            loss_weights[first:last] = weight
        branches = _branches(a["branches"][index]) if self.pairs[index] else None
        return Document(self.names[index], ids, loss_weights, int(a["trimmed"][index]), branches)

    def with_reference(self, reference: NDArray[np.float64]) -> TokenStore:
        """Return the same documents with log-probabilities of the base, ``[D, 2]``: chosen and rejected answers of its
        pairs."""
        branches = np.concatenate([self.arrays["branches"][:, :3], reference], axis=1)
        return TokenStore({**self.arrays, "branches": branches})

    def __iter__(self) -> Iterator[Document]:
        return (self[index] for index in range(len(self)))

    @property
    def tokens(self) -> int:
        """Number of tokens of all documents."""
        return int(self.lengths.sum())


class CacheEntry:
    """The cached documents of one ``identity`` (:func:`key_of`) in the folder ``root``.

    Use it in a ``with`` statement, which waits until no other process on this machine writes the same entry. If the
    cache cannot be used, nothing is raised: documents are then not cached, and ``problem`` says why.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        self.root, self.identity = root, identity
        self.folder = root / key_of(identity)
        self.problem = ""
        self._lock = ExitStack()

    def __enter__(self) -> CacheEntry:
        try:
            self._lock.enter_context(only_one(self.folder))
        except OSError as error:
            self._fail(error.strerror)
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    def read(self) -> tuple[TokenStore, dict[str, Any]] | None:
        """Return documents and counts as :func:`open_store` does, or None if they are missing or damaged."""
        if self.problem:
            return None
        try:
            return open_store(self.folder, self.identity)
        except Damaged:
            return None

    def write(self, documents: TokenStore, counts: dict[str, Any]) -> tuple[TokenStore, dict[str, Any]]:
        """Cache ``documents`` and return them memory-mapped, with ``counts``; as they are if they cannot be cached."""
        if self.problem:
            return documents, counts
        try:
            remove_unused(self.root)
            save(documents, self.folder, self.identity, counts)
            return open_store(self.folder, self.identity)
        except Damaged as error:
            self._fail(error)
        except OSError as error:
            self._fail(error.strerror)
        return documents, counts

    def _fail(self, reason: object) -> None:
        self.problem = f"tokens are not saved in {self.root} ({reason})"


def save(store: TokenStore, folder: Path, identity: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
    """Write ``store`` and ``counts`` (JSON) to ``folder``, which only its owner can read."""
    with atomic_folder(folder) as temporary:
        checksums = {}
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", store.arrays[name], allow_pickle=False)
            checksums[name] = file_digest(temporary / f"{name}.npy")
        index = {"schema": SCHEMA, "identity": dict(identity), "facts": dict(counts), "checksums": checksums}
        index["checksum"] = key_of(index)
        (temporary / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o700)  # the arrays hold the words of patients


def open_store(folder: Path, identity: Mapping[str, Any]) -> tuple[TokenStore, dict[str, Any]]:
    """Return the documents in ``folder``, memory-mapped, and the counts stored with them.

    Raises Damaged if files are missing or have changed, and UserError if they have another ``identity``.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index.pop("checksum") != key_of(index) or index["schema"] != SCHEMA:
            raise Damaged(f"{INDEX} has changed, or is of another version")
        stored, checksums, counts = index["identity"], index["checksums"], index["facts"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(str(error)) from None
    different = [key for key in identity if stored.get(key) != identity[key]]
    if different:
        hint = "Remove that folder: it will be written again."
        raise UserError(f"tokens of another {', '.join(different)}", where=folder, hint=hint)
    arrays: dict[str, NDArray[Any]] = {}
    for name in ARRAYS:
        file = folder / f"{name}.npy"
        try:
            if file_digest(file) != checksums[name]:
                raise Damaged(f"{file.name} has changed")
            arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise Damaged(f"{file.name}: {error}") from None
    with suppress(OSError):
        os.utime(folder)
    return TokenStore(arrays), counts


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Lock ``folder`` against other processes on this machine; wait until it is free."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if fcntl is None:
        yield
        return
    with (folder.parent / f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_unused(root: Path) -> None:
    """Remove entries of ``root`` that were not opened for :data:`UNUSED_DAYS` days."""
    oldest = time.time() - UNUSED_DAYS * 86_400
    for entry in root.glob("*"):
        with suppress(OSError):
            if not OURS.fullmatch(entry.name) or entry.stat().st_mtime >= oldest:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def key_of(record: Mapping[str, Any]) -> str:
    """Return a hash of ``record`` (JSON); the hash of an identity is the name of its folder."""
    return blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16).hexdigest()


def _runs(loss_weights: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the runs of equal weight above 0, int64 ``[R, 2]``, and their weights, fp32 ``[R]``."""
    changes = np.flatnonzero(np.diff(loss_weights, prepend=0, append=0))
    starts, stops = changes[:-1], changes[1:]
    values = loss_weights[starts] if len(starts) else np.zeros(0, np.float32)
    counted = values > 0
    return np.stack([starts, stops], axis=1)[counted].astype(np.int64), values[counted]


def _of_branches(branches: Branches | None) -> tuple[float, ...]:
    if branches is None:
        return (0.0,) * 5
    return branches.chosen, branches.rejected, branches.weight, *(branches.reference or (np.nan, np.nan))


def _branches(row: NDArray[np.float64]) -> Branches:
    chosen, rejected, weight, *reference = row.tolist()
    known = not np.isnan(reference).any()
    return Branches(int(chosen), int(rejected), weight, (reference[0], reference[1]) if known else None)


def _sums(values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[Any]:
    """Return the sum of ``values`` between each two neighbouring ``offsets``, 0 if there are none."""
    total = np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]])
