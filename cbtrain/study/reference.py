"""The base's log-probabilities of the answers that a stage compares: computed once, and kept by content.

They lie in the stage's folder, so that a run which continues uses the same numbers, and in the cache, so that other
runs over the same pairs and base do not compute them again.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cbtrain.console import counted_bar, say
from cbtrain.files import write_atomic
from cbtrain.model.decoder import Decoder
from cbtrain.study.datasets import SpeakerDataset
from cbtrain.study.stages import StageSpec
from cbtrain.tokens.cache import TokenStore, remove_unused
from cbtrain.tokens.tokenize import cache_root
from cbtrain.training import distributed
from cbtrain.training.objectives.reference import answers_of_all

NAME = "reference.npz"
"""The file in a stage's folder."""

DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, TypeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged file raises: zipfile takes some damage for encryption, or for a version that it lacks."""


def with_reference(
    spec: StageSpec, dataset: SpeakerDataset, decoder: Decoder, folder: Path, console: Console
) -> SpeakerDataset:
    """Return ``dataset`` with the log-probabilities of the base in its pairs, so far as the stage ``spec`` compares
    answers: of those to validate on always, of those to train on if its loss needs them before the first step.
    ``decoder`` is the base, with a new adapter or without; ``folder`` is the stage's."""
    settings = spec.settings
    if settings.objective == "sft":
        return dataset
    trained = settings.objective == "dpo" and settings.preference.reference == "cached"
    parts = [dataset.validation, *([dataset.train] if trained else [])]
    stores = [part.documents for part in parts if len(part.documents)]
    if not stores:
        return dataset
    reference = _found_or_measured(spec, stores, decoder, folder, console)
    referenced = {id(store): store.with_reference(of) for store, of in zip(stores, reference, strict=True)}

    def told(part: TokenStore) -> TokenStore:
        return referenced.get(id(part), part)

    train = replace(dataset.train, documents=told(dataset.train.documents))
    validation = replace(dataset.validation, documents=told(dataset.validation.documents))
    return replace(dataset, train=train, validation=validation)


def _found_or_measured(
    spec: StageSpec, stores: Sequence[TokenStore], decoder: Decoder, folder: Path, console: Console
) -> list[NDArray[np.float64]]:
    key, pairs = _key(stores, decoder, spec.settings.pack_tokens), sum(map(len, stores))
    cache = cache_root(spec.config.tokens.cache)
    places = [folder / NAME, *([cache.parent / "reference" / f"{key}.npz"] if cache else [])]
    found = next((read for place in places if (read := _read(place, key, stores)) is not None), None)
    found = distributed.agreed(found)
    if found is None:
        say(console, f"{spec.name}: the base reads {pairs:,} pairs of answers, to compare with")
        found = []
        for store in stores:
            with counted_bar(console, "Reading packs of pairs") as progress:
                found.append(answers_of_all(decoder, store, spec.settings.pack_tokens, progress))
    else:
        say(console, f"{spec.name}: what the base says of {pairs:,} pairs of answers is known already")
    if distributed.rank() == 0:
        for place in places:
            _write(place, key, found, console)
    return found


def _key(stores: Sequence[TokenStore], decoder: Decoder, pack_tokens: int) -> str:
    """Return a hash of everything that decides the numbers, to the last bit: validation packs the pairs alike, so a new
    adapter prefers nothing more than its base."""
    digest = blake2b(digest_size=16)
    held = (
        pack_tokens,
        decoder.fingerprint,
        str(decoder.format),
        str(decoder.dtype),
        decoder.backend,
        decoder.kernels.names,
    )
    digest.update(repr(held).encode())
    for store in stores:
        arrays = store.arrays
        for name in ("ids", "offsets", "runs", "run_weights", "run_offsets"):
            digest.update(np.ascontiguousarray(arrays[name]).tobytes())
        digest.update(np.ascontiguousarray(arrays["branches"][:, :2]).tobytes())
    return digest.hexdigest()


def _read(place: Path, key: str, stores: Sequence[TokenStore]) -> list[NDArray[np.float64]] | None:
    """Return the numbers in the file ``place``, None if it is not there, damaged, or about something else."""
    try:
        with np.load(place, allow_pickle=False) as file:
            arrays = [np.asarray(file[f"part{number}"], np.float64) for number in range(len(stores))]
            same = str(file["key"]) == key
    except DAMAGE:
        return None
    fits = all(array.shape == (len(store), 2) for array, store in zip(arrays, stores, strict=True))
    return arrays if same and fits and all(np.isfinite(array).all() for array in arrays) else None


def _write(place: Path, key: str, found: Sequence[NDArray[np.float64]], console: Console) -> None:
    content = io.BytesIO()
    arrays: dict[str, Any] = {f"part{number}": array for number, array in enumerate(found)}
    np.savez(content, key=np.asarray(key), **arrays)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.name != NAME:
            remove_unused(place.parent)
        write_atomic(place, content.getvalue())
    except OSError as error:
        say(console, f"note: log-probabilities of the base are not saved in {place.parent} ({error.strerror})")
