"""No patient measures a therapist that was trained on pairs of answers made from that patient's sessions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError, first_of
from cbtrain.eval.report.formatting import counted
from cbtrain.files import expanded, read_json_object
from cbtrain.settings import parse_yaml
from cbtrain.study.evaluation.therapists import TUNED, Therapist
from cbtrain.study.evaluation.treated import Treated
from cbtrain.study.pairs.writing import BESIDE, patients_beside
from cbtrain.study.run_files import CONFIG
from cbtrain.study.trained_run import TrainedRun

MOST_NAMED = 6
HINT = "Restore it, or make the pairs again."


def refuse_patients_of_pairs(
    treated: Treated, config: StudyConfig, trained: TrainedRun | None, therapists: Sequence[Therapist]
) -> None:
    """Raise UserError if one who is ``treated`` gave pairs to the training corpus of a therapist, as far as the files
    beside that corpus say (:func:`cbtrain.study.pairs.writing.patients_beside`)."""
    for name, corpus in _corpora(config, trained, therapists):
        for file in _beside(corpus):
            used = read_json_object(file, HINT).get("patients")
            both = [patient for patient in treated.profiles if isinstance(used, dict) and patient in used]
            if both:
                what = f"{name} was trained on pairs of {counted(len(both), 'patient')} who would be treated"
                hint = "Leave them out with evaluation.patients.only, or treat others."
                raise UserError(f"{what}: {', '.join(first_of(both, MOST_NAMED))} ({file.name})", hint=hint)


def _corpora(
    config: StudyConfig, trained: TrainedRun | None, therapists: Iterable[Therapist]
) -> Iterator[tuple[str, Path]]:
    """Yield the training corpus of each therapist whose run's settings say it."""
    if trained is not None:
        yield TUNED, expanded(config.corpus.path)
        return
    for therapist in therapists:
        if therapist.weights is None or therapist.weights.adapter is None:
            continue
        corpus = _corpus_of(therapist.weights.adapter.parent / CONFIG)
        if corpus is not None:
            yield therapist.name, corpus


def _corpus_of(settings: Path) -> Path | None:
    content = parse_yaml(lambda: settings.read_text(encoding="utf-8"), settings) if settings.is_file() else None
    corpus = content.get("corpus") if isinstance(content, dict) else None
    path = corpus.get("path") if isinstance(corpus, dict) else None
    return expanded(path) if isinstance(path, str) else None


def _beside(corpus: Path) -> list[Path]:
    """Return the files that say whose the pairs of ``corpus`` are, a file or a folder."""
    if corpus.is_dir():
        return sorted(corpus.glob(f"*{BESIDE}"))
    return [patients_beside(corpus)] if patients_beside(corpus).is_file() else []
