"""A folder of pairs in three parts: written by the generator, or filled with files of somebody else's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.files import read_sealed, require_new, seal, written_together
from cbtrain.tasks.entity_matching.generate import VERSION
from cbtrain.tasks.entity_matching.pair import Counts, Pair
from cbtrain.tasks.entity_matching.reading import PairFile, read_pairs

MANIFEST = "manifest.json"

ENDINGS = (".jsonl", ".json", ".json.gz", ".jsonl.gz", ".csv", ".csv.gz", ".tsv")
"""Endings of files that are taken for a part of the folder."""

ALSO = {"train": ("train",), "validation": ("validation", "valid"), "test": ("test", "gs")}
"""Names of the file of each part."""

Parts = Mapping[str, Sequence[Pair]]


def write_parts(parts: Parts, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``parts`` to ``folder``, each as JSON lines in the public shape, and a manifest: the generator's
    ``settings``, counts and SHA-256 of each file.

    Return the manifest. Raises UserError on a folder that is not empty.
    """
    require_new(folder)
    texts = {name: "".join(_line(pair) for pair in pairs) for name, pairs in parts.items()}
    files = {
        f"{name}.jsonl": {
            "pairs": Counts.of(parts[name]).pairs,
            "positives": Counts.of(parts[name]).positives,
            "negatives": Counts.of(parts[name]).negatives,
            "hard_negatives": sum(bool(pair.hard) for pair in parts[name]),
            "sha256": sha256(text.encode()).hexdigest(),
        }
        for name, text in texts.items()
    }
    manifest = {"task": "entity-matching", "generator": VERSION, **settings, "files": files}
    with written_together(folder) as temporary:
        for name, text in texts.items():
            (temporary / f"{name}.jsonl").write_bytes(text.encode())
        (temporary / MANIFEST).write_text(json.dumps(seal(manifest), indent=2) + "\n", encoding="utf-8")
    return manifest


def _line(pair: Pair) -> str:
    """Return ``pair`` as a line in the shape of the public files: the number of a product is that of its cluster."""
    *_, left, right = pair.id.split("-")
    number = pair.id.rpartition(f"-{left}-{right}")[0]
    sides = (("left", left, pair.left, "l"), ("right", right, pair.right, "r"))
    row: dict[str, Any] = {}
    for side, product, title, mark in sides:
        row |= {f"id_{side}": f"{mark}-{number}", f"title_{side}": title}
        row |= {f"description_{side}": None, f"price_{side}": None, f"cluster_id_{side}": product}
    row |= {"label": pair.label, "pair_id": pair.id, "is_hard_negative": bool(pair.hard)}
    return json.dumps(row, ensure_ascii=False) + "\n"


def find_part(path: Path, part: str) -> Path | None:
    """Return the file of ``part`` in the folder ``path``, or ``path`` if it is a file; None if there is none. Raises
    UserError if several files could be meant, and if there is nothing at ``path``."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError("no such file or folder", where=path, hint="`cbtrain task entity-matching generate` makes one.")
    found = [path / f"{name}{ending}" for name in ALSO[part] for ending in ENDINGS]
    found = [file for file in found if file.is_file()]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise UserError(f"several files for the part {part}: {names}", where=path, hint="Leave one of them there.")
    return found[0] if found else None


def read_part(path: Path, part: str) -> PairFile:
    """Return the pairs of ``part`` (:data:`ALSO`) of the folder ``path``, or those of the file ``path``.

    Raises UserError if there is none, and as :func:`read_pairs`.
    """
    file = find_part(path, part)
    if file is None:
        names = " or ".join(f"{name}.jsonl, .csv, .json.gz" for name in ALSO[part])
        raise UserError(f"there is no part {part}", where=path, hint=f"Expected {names}; or name a file itself.")
    return read_pairs(file)


def shared_pairs(parts: Mapping[str, PairFile]) -> list[str]:
    """Return a line for each two of ``parts`` that have pairs in common: such a test is too easy."""
    contents = {name: {pair.content for pair in file.pairs} for name, file in parts.items()}
    return [
        f"{count:,} pairs of {second} are in {first}, too"
        for first, second in combinations(parts, 2)
        if (count := sum(pair.content in contents[first] for pair in parts[second].pairs))
    ]


def changed_files(folder: Path) -> list[str]:
    """Return a line for each file of a generated ``folder`` that is no longer as its manifest says; none without a
    manifest. Raises UserError on a damaged one."""
    place = folder / MANIFEST
    if not place.is_file():
        return []
    manifest = read_sealed(place, "Generate the pairs again.")
    entries = manifest.get("files")
    lines = []
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        file = folder / name
        if not file.is_file():
            lines.append(f"{name} is in the manifest, but not here")
        elif sha256(file.read_bytes()).hexdigest() != entry.get("sha256"):
            lines.append(f"{name} has changed since it was generated")
    return lines
