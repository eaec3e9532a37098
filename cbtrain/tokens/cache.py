"""Tokenized documents in a folder of memory-mapped arrays.

The folder's name is a hash of everything that decides its content: the sessions' texts, the tokenizer, the chat format
and the loss policy. It is written beside its place and renamed, so that two processes may make it at once; each array
carries a checksum, so that damage is found at opening.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cbtrain.errors import UserError
from cbtrain.files import atomic_folder
from cbtrain.tokens.document import Document

try:
    import fcntl
except ImportError:  # no file locks on this system: two processes may then do the same work twice
    fcntl = None  # type: ignore[assignment]

SCHEMA = "cbtrain.tokens/1"
INDEX = "index.json"
ARRAYS = ("ids", "offsets", "runs", "run_weights", "run_offsets", "trimmed", "names")
OURS = re.compile(r"\.?[0-9a-f]{32}(\..*)?")
"""Names of entries, of their locks, and of what an interrupted writer leaves."""

UNUSED_DAYS = 30
"""Entries that nobody has opened for so long are removed when a new one is written."""


class Damaged(Exception):
    """The cache's files are incomplete or not as they were written."""


class TokenStore(Sequence[Document]):
    """Documents in flat arrays, in memory or mapped from files.

    ``ids`` int32 ``[N]`` holds all documents end to end, ``offsets`` int64 ``[D + 1]`` where each begins and ends. Loss
    weights are kept as runs of equal weight: ``runs`` int64 ``[R, 2]`` (first and last + 1, inside the document),
    ``run_weights`` float32 ``[R]``, ``run_offsets`` int64 ``[D + 1]``. ``trimmed`` int32 ``[D]``; ``names`` uint8, the
    names joined by newlines.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)
        self.lengths: NDArray[np.int64] = np.diff(arrays["offsets"])
        self.names = bytes(arrays["names"]).decode().split("\n") if len(self.lengths) else []
        runs, offsets = arrays["runs"], arrays["run_offsets"]
        # The first token of a document is nobody's target.
        sizes = (runs[:, 1] - np.maximum(runs[:, 0], 1)).clip(min=0)
        self.supervised = _sums(sizes, offsets)
        """Tokens of each document that the loss counts, int64 ``[D]``."""
        self.weight_sums = _sums(sizes * arrays["run_weights"].astype(np.float64), offsets)
        """Sum of the loss weights in each document, float64 ``[D]``."""

    @classmethod
    def of(cls, documents: Sequence[Document]) -> TokenStore:
        """Hold ``documents`` in flat arrays."""
        runs, loss_weights, counts = [], [], []
        for document in documents:
            own, values = _runs(document.loss_weights)
            runs.append(own)
            loss_weights.append(values)
            counts.append(len(own))
        return cls(
            {
                "ids": np.concatenate([d.ids for d in documents] or [np.zeros(0, np.int32)]).astype(np.int32),
                "offsets": np.cumsum([0, *(len(d) for d in documents)], dtype=np.int64),
                "runs": np.concatenate(runs or [np.zeros((0, 2), np.int64)]),
                "run_weights": np.concatenate(loss_weights or [np.zeros(0, np.float32)]).astype(np.float32),
                "run_offsets": np.cumsum([0, *counts], dtype=np.int64),
                "trimmed": np.asarray([d.trimmed for d in documents], dtype=np.int32),
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
        own = slice(a["run_offsets"][index], a["run_offsets"][index + 1])
        for (first, last), weight in zip(a["runs"][own].tolist(), a["run_weights"][own].tolist(), strict=True):
            loss_weights[first:last] = weight
        return Document(self.names[index], ids, loss_weights, int(a["trimmed"][index]))

    def __iter__(self) -> Iterator[Document]:
        return (self[index] for index in range(len(self)))

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())


def save(store: TokenStore, folder: Path, identity: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write ``store`` to ``folder``, readable for its owner alone; ``facts`` (JSON) are kept beside it."""
    with atomic_folder(folder) as temporary:
        checksums = {}
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", store.arrays[name], allow_pickle=False)
            checksums[name] = _checksum(temporary / f"{name}.npy")
        index = {"schema": SCHEMA, "identity": dict(identity), "facts": dict(facts), "checksums": checksums}
        index["checksum"] = key_of(index)
        (temporary / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o700)  # what patients said is in there


def open_store(folder: Path, identity: Mapping[str, Any]) -> tuple[TokenStore, dict[str, Any]]:
    """The documents in ``folder``, memory-mapped, and the facts beside them.

    Raises Damaged where files are missing or have changed, and UserError where they are of another ``identity``.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index.pop("checksum") != key_of(index) or index["schema"] != SCHEMA:
            raise Damaged(f"{INDEX} has changed, or is of another version")
        known, checksums, facts = index["identity"], index["checksums"], index["facts"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(str(error)) from None
    different = [key for key in identity if known.get(key) != identity[key]]
    if different:
        hint = "Remove that folder; it is made anew."
        raise UserError(f"tokens of another {', '.join(different)}", where=folder, hint=hint)
    arrays: dict[str, NDArray[Any]] = {}
    for name in ARRAYS:
        file = folder / f"{name}.npy"
        try:
            if _checksum(file) != checksums[name]:
                raise Damaged(f"{file.name} has changed")
            arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise Damaged(f"{file.name}: {error}") from None
    with suppress(OSError):
        os.utime(folder)
    return TokenStore(arrays), facts


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Wait until no other process on this machine makes ``folder``."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if fcntl is None:
        yield
        return
    with (folder.parent / f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_unused(root: Path) -> None:
    """Remove entries of ``root`` that were not opened for :data:`UNUSED_DAYS`."""
    before = time.time() - UNUSED_DAYS * 86_400
    for entry in root.glob("*"):
        with suppress(OSError):
            if not OURS.fullmatch(entry.name) or entry.stat().st_mtime >= before:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def key_of(facts: Mapping[str, Any]) -> str:
    """A hash of ``facts`` (JSON); that of an identity is its entry's name."""
    return blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _runs(loss_weights: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Stretches of equal weight above 0, ``[R, 2]``, and their weights."""
    changes = np.flatnonzero(np.diff(loss_weights, prepend=0, append=0))
    starts, stops = changes[:-1], changes[1:]
    values = loss_weights[starts] if len(starts) else np.zeros(0, np.float32)
    counted = values > 0
    return np.stack([starts, stops], axis=1)[counted].astype(np.int64), values[counted]


def _sums(values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[Any]:
    """Sums of ``values`` between neighbouring ``offsets``, empty stretches included."""
    total = np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]])


def _checksum(file: Path) -> str:
    digest = blake2b(digest_size=16)
    with file.open("rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
