"""Losses of a sweep's runs on the same sessions, so that they can be compared.

Which sessions a run is validated on depends on its seed, its corpus and its split. Where that differs between runs of
one speaker, each finished adapter is measured once more on the sessions of the first of these runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cbtrain.model.adapters.methods import load_adapter
from cbtrain.model.decoder import Decoder
from cbtrain.study.sweep.folder import read_note, write_note
from cbtrain.study.sweep.prepare import PreparedRun
from cbtrain.tokens.cache import TokenStore
from cbtrain.training.validation import measure_loss
from cbtrain.transcripts.cleaning import fingerprint_of
from cbtrain.transcripts.types import Course

HELD_OUT = "held_out"
"""Key of a run's note: what was measured, and on which documents."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the runs of one speaker are compared: by their own validation, or (``common``) by their losses on the
    validation sessions of ``reference``. ``excluded`` says of runs why they cannot be."""

    reference: PreparedRun
    common: bool
    excluded: dict[str, str]

    @property
    def in_words(self) -> str:
        """What is done where ``common``."""
        sessions = f"the validation sessions of run {self.reference.name}"
        return f"runs validate on different sessions; held-out losses are on {sessions}"

    def lacks(self, run: PreparedRun, folder: Path) -> bool:
        """Return whether the loss of ``run`` on the common sessions is still to be measured."""
        if not self.common or run.name in self.excluded:
            return False
        return noted_loss(folder, run, documents_digest(self.reference)) is None


def comparison_of(runs: Sequence[PreparedRun]) -> Comparison | None:
    """Return how ``runs``, all of one speaker and objective, are compared; None if none of them validates. Pairs of
    answers that are not the same are not compared: their loss is not that of sessions."""
    validated = [run for run in runs if len(run.dataset.validation.documents)]
    if not validated:
        return None
    reference = validated[0]
    if len({documents_digest(run) for run in runs}) == 1:
        return Comparison(reference, common=False, excluded={})
    if reference.spec.settings.objective != "sft":
        others = [run.name for run in runs if documents_digest(run) != documents_digest(reference)]
        return Comparison(reference, common=False, excluded=dict.fromkeys(others, f"other pairs than {reference.name}"))
    excluded = {run.name: why for run in runs if (why := _why_not(run, reference))}
    return Comparison(reference, common=True, excluded=excluded)


def documents_digest(run: PreparedRun) -> str:
    """Return a digest of what ``run`` is validated on, in whatever order."""
    return _digest(run.dataset.validation.documents)


@lru_cache(maxsize=256)
def _digest(documents: TokenStore) -> str:
    """Of ``documents``, which many runs share and which do not change."""
    contents = (document.ids.tobytes() + document.loss_weights.tobytes() for document in documents)
    each = sorted(blake2b(content, digest_size=16).digest() for content in contents)
    return blake2b(b"".join(each), digest_size=16).hexdigest()


def _why_not(run: PreparedRun, reference: PreparedRun) -> str | None:
    """Return why ``run`` cannot be measured on the sessions of ``reference``; None if it can."""
    ours, theirs = (one.config.tokens.model_dump(exclude={"cache", "weights"}) for one in (run, reference))
    if ours != theirs:
        return f"tokens.* differs from run {reference.name}: it has learnt another layout"
    if run.corpus is reference.corpus:
        return None
    seen, unseen = _sessions_of(run.corpus.split.train), _sessions_of(reference.corpus.split.validation)
    ids = {course.id for course in run.corpus.split.train} & {c.id for c in reference.corpus.split.validation}
    if count := len(ids):
        return f"trained on {count} patient{'s' * (count != 1)} on whom run {reference.name} is validated"
    if count := len(seen & unseen):
        return f"trained on {count} session{'s' * (count != 1)} on which run {reference.name} is validated"
    return None


def _sessions_of(courses: Sequence[Course]) -> set[bytes]:
    return {fingerprint_of(session) for course in courses for session in course.sessions}


def measure_missing(run: PreparedRun, comparison: Comparison, folder: Path, decoder: Callable[[], Decoder]) -> None:
    """Measure ``run`` (finished, in the sweep's ``folder``) on the common sessions if that is still to be done;
    ``decoder`` returns the base, which is the base again afterwards."""
    if not comparison.lacks(run, folder):
        return
    reference, base = comparison.reference, decoder()
    adapter = load_adapter(base, run.folder / run.speaker)
    try:
        loss = measure_loss(base, reference.dataset.validation.documents, reference.spec.settings.pack_tokens)
    finally:
        adapter.remove()
    held_out: dict[str, Any] = {"documents": documents_digest(reference), "loss": loss.mean, "tokens": loss.tokens}
    write_note(folder, run.name, **{HELD_OUT: held_out})


def noted_loss(folder: Path, run: PreparedRun, digest: str) -> float | None:
    """Return the loss of ``run`` on the documents with this ``digest``, if it is noted."""
    noted = read_note(folder, run.name).get(HELD_OUT)
    if not isinstance(noted, dict) or noted.get("documents") != digest:
        return None
    loss = noted.get("loss")
    return float(loss) if isinstance(loss, int | float) else None
