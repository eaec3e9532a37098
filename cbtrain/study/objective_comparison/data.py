"""The pairs of a comparison in parts, the same for every arm, and those of the placebo."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rich.console import Console

from cbtrain import __version__
from cbtrain.errors import UserError
from cbtrain.files import read_sealed, seal, write_atomic
from cbtrain.study.corpus import load_corpus
from cbtrain.study.objective_comparison.comparison_file import ObjectivesFile, reading
from cbtrain.transcripts.preference import rejected_session
from cbtrain.transcripts.split import SIDES, Split
from cbtrain.transcripts.types import Session
from cbtrain.transcripts.writing import pair_record, write_sessions

PAIRS, PLACEBO, MANIFEST = "pairs", "placebo", "manifest.json"

SWAPPED = "chosen and rejected answer are exchanged, to train on the rejected one"
"""A fact of each pair of the placebo: where it comes from."""


@dataclass(frozen=True, slots=True)
class PairParts:
    """Folders of the parts of the ``pairs`` and of those of the ``placebo``, a hash of all, how many each part has, and
    the patients that a model is trained or chosen on (those that are known)."""

    pairs: Path
    placebo: Path
    digest: str
    counts: dict[str, int]
    patients: set[str]


def write_pairs(file: ObjectivesFile, folder: Path, console: Console) -> PairParts:
    """Read, clean and split the pairs of ``file``, and write their parts to ``folder``. Raises UserError if they cannot
    be used, have no validation part, or are others than those that lie there already."""
    study = file.study()
    config = study.model_copy(update={"corpus": reading(study, file.pairs), "split": file.split})
    parts = load_corpus(config, console).split
    sides = {side: [session for course in getattr(parts, side) for session in course.sessions] for side in SIDES}
    _check(sides, file)
    digest = blake2b(digest_size=16)
    for side, sessions in sides.items():
        for session in sessions:
            digest.update(repr((side, json.dumps(pair_record(session), sort_keys=True))).encode())
    counts = {side: len(sessions) for side, sessions in sides.items()}
    found = PairParts(folder / PAIRS, folder / PLACEBO, digest.hexdigest(), counts, _patients(parts))
    manifest = folder / MANIFEST
    if manifest.exists():
        if read_sealed(manifest, "Choose another --out.").get("pairs") != found.digest:
            problem = "the pairs are not those with which this comparison began"
            raise UserError(problem, where=file.pairs, hint="Restore them, or choose another --out.")
        return found
    for side, sessions in sides.items():
        if sessions:
            write_sessions(sessions, [], found.pairs / f"{side}.jsonl")
            write_sessions(map(exchanged, sessions), [], found.placebo / f"{side}.jsonl")
    content: dict[str, Any] = {"source": file.pairs, "pairs": found.digest, "counts": counts}
    content |= {"placebo": SWAPPED, "rejected_by": file.rejected_by, "cbtrain": __version__}
    write_atomic(manifest, json.dumps(seal(content), indent=2) + "\n")
    return found


def exchanged(session: Session) -> Session:
    """Return a pair whose chosen answer is the rejected one of ``session``, and the other way round."""
    preference = session.preference
    assert preference is not None
    chosen = session.turns[preference.begin :]
    other = replace(rejected_session(session), preference=replace(preference, rejected=chosen))
    return replace(other, facts={**session.facts, PLACEBO: SWAPPED})


def _check(sides: Mapping[str, Sequence[Session]], file: ObjectivesFile) -> None:
    for side in ("train", "validation"):
        if not sides[side]:
            hint = "Set split.validation, split.test or split.seed of the comparison so that each part has patients."
            raise UserError(f"the pairs have no {side} part", where=file.pairs, hint=hint)
    for sessions in sides.values():
        if sessions and sessions[0].preference is None:
            hint = "Name a file with chosen and rejected answers (docs/transcripts.md)."
            raise UserError("these are sessions, not pairs of answers", where=file.pairs, hint=hint)


def _patients(parts: Split) -> set[str]:
    sessions = (session for side in (parts.train, parts.validation) for course in side for session in course.sessions)
    return {session.patient for session in sessions if session.patient}
