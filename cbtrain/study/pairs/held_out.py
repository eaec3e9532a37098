"""Held-out patients never enter pairs: what a model is trained on must not measure it later.

Two rules. Patients in the validation or test part of a split behind the run (its own, or that of a therapist's
training) are refused, always. Of the others that an evaluation treated, whoever makes pairs says who is kept for the
final test: a share, drawn by a number that each patient has for good (so that a patient who is added moves no other),
or their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cbtrain.errors import UserError, first_of
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.seeds import seed_from
from cbtrain.files import exists, expanded
from cbtrain.settings import parse_yaml
from cbtrain.study.pairs.run_plan import read_plan
from cbtrain.study.run_files import CONFIG, STATE
from cbtrain.transcripts.source import read_text
from cbtrain.transcripts.split import load_split

OPTION = "--keep-out"
MOST_NAMED = 6

NUMBERS = 2**48
"""Patients' numbers are below it."""


@dataclass(frozen=True, slots=True)
class KeepOut:
    """Who is kept for the final test: a ``share`` of all patients, drawn by ``seed``, or those with one of ``names``.
    ``said``: what the user wrote."""

    said: str
    share: float = 0.0
    names: frozenset[str] = frozenset()
    seed: int = 0

    def among(self, patients: Sequence[str]) -> list[str]:
        """Return those of ``patients`` who are kept. A share above 0 keeps at least one of several, and not all."""
        if not self.share:
            return [patient for patient in patients if patient in self.names]
        drawn = sorted(patients, key=self._number)
        count = sum(self._number(patient) < self.share * NUMBERS for patient in drawn)
        count = min(max(count, 1), len(drawn) - 1) if len(drawn) > 1 else count
        return sorted(drawn[:count])

    def _number(self, patient: str) -> int:
        return seed_from(f"{self.seed}|keep out|{patient}")


def keep_out(said: str, seed: int) -> KeepOut:
    """Return whom ``said`` keeps: a share (0.5; 0: nobody), or a file or run folder that names them: a name a line, or
    the validation and test part of a ``split.json`` or of a trained run. Raises UserError."""
    try:
        share = float(said)
    except ValueError:
        return KeepOut(said, names=frozenset(_names_in(said)))
    if not 0 <= share < 1:
        raise UserError(f"{said} is not a share", where=OPTION, hint="0.5 keeps half of the patients, 0 nobody.")
    return KeepOut(said, share, seed=seed)


def _names_in(said: str) -> list[str]:
    path = expanded(said)
    if not exists(path):
        raise UserError(f"{said!r} is neither a share nor a file", where=OPTION, hint="E.g. 0.5, or a file of names.")
    if path.is_dir():
        path = path / STATE if (path / STATE).is_file() else path
    if path.is_dir() or path.suffix == ".json":
        parts = load_split(path)
        return [*parts["validation"], *parts["test"]]
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise UserError("it names nobody", where=path, hint="Write one patient a line, or keep a share: 0.5.")
    return names


@dataclass(frozen=True, slots=True)
class Admitted:
    """``patients`` may enter pairs. ``kept``: for the final test, by the user's word. ``refused``: held out by the
    split of a run, each with the run. ``keep``: the user's word."""

    patients: list[str]
    kept: list[str]
    refused: dict[str, str]
    keep: KeepOut
    notes: list[str] = field(default_factory=list)


def admit(patients: Iterable[str], runs: Sequence[Path], keep: KeepOut | None) -> Admitted:
    """Return which of ``patients``, whom ``runs`` treated, may enter pairs. Raises UserError if nobody may, or if the
    user has not said who is kept (``keep`` is None)."""
    everybody = sorted(set(patients))
    refused = {patient: run.name for run in runs for patient in _held_out_in(run, everybody)}
    free = [patient for patient in everybody if patient not in refused]
    if not free:
        what = f"all {counted(len(everybody), 'patient')} are held out of training by the split"
        hint = "Evaluate patients who are not the final test's, e.g. some of a library (evaluation.patients)."
        raise UserError(what, where=runs[0], hint=hint)
    if keep is None:
        what = f"who of {counted(len(free), 'patient')} is kept for the final test?"
        raise UserError(what, where=OPTION, hint=f"Say {OPTION} 0.5 for a half, or name a file of their names.")
    kept = keep.among(free)
    used = [patient for patient in free if patient not in set(kept)]
    if not used:
        raise UserError(f"it keeps all {counted(len(free), 'patient')}", where=OPTION, hint="Keep fewer of them.")
    strangers = sorted(keep.names - set(everybody))
    if strangers and not keep.names & set(everybody):
        what = f"none of the {counted(len(strangers), 'patient')} that it names is here, e.g. {strangers[0]}"
        raise UserError(what, where=keep.said, hint=f"Patients here are called like {everybody[0]}.")
    notes = [f"{OPTION} names {counted(len(strangers), 'patient')} who are not here"] if strangers else []
    return Admitted(used, kept, refused, keep, notes)


def told(admitted: Admitted) -> list[str]:
    """Return lines for the user: who enters, and who does not."""
    lines = [f"{counted(len(admitted.patients), 'patient')} may enter"]
    if admitted.refused:
        run = next(iter(admitted.refused.values()))
        what = "held out by the split of"
        lines.append(f"{counted(len(admitted.refused), 'patient')} refused, {what} {run}: {_named(admitted.refused)}")
    if admitted.kept:
        lines.append(f"{counted(len(admitted.kept), 'patient')} kept for the final test: {_named(admitted.kept)}")
    elif not admitted.refused:
        lines.append("nobody is kept for the final test: measure the trained model on patients who are not here")
    return [*lines, *(f"note: {note}" for note in admitted.notes)]


def kept_facts(admitted: Admitted) -> dict[str, str]:
    """Return the facts of a pair that say who was kept out."""
    keep = admitted.keep
    return {"keep_out": Path(keep.said).name} | ({"keep_out_seed": str(keep.seed)} if keep.share else {})


def about_patients(admitted: Admitted) -> dict[str, object]:
    """Return what the file beside the pairs says of those who are not in them."""
    return {**kept_facts(admitted), "kept_for_the_final_test": admitted.kept, "held_out_by_a_split": admitted.refused}


def _named(patients: Iterable[str]) -> str:
    return ", ".join(first_of(list(patients), MOST_NAMED))


def _held_out_in(run: Path, patients: Sequence[str]) -> list[str]:
    """Return those of ``patients`` whom a split holds out: that of ``run``, or of a run in which one of its therapists
    was trained; all of them, if they are the file of a test part."""
    splits = [load_split(state) for state in _trained_runs(run)]
    held_out = {patient for parts in splits for side in ("validation", "test") for patient in parts[side]}
    path = run / CONFIG
    settings = parse_yaml(lambda: path.read_text(encoding="utf-8"), path) if path.is_file() else None
    settings = settings if isinstance(settings, dict) else {}
    corpus, evaluation = (settings.get(name) or {} for name in ("corpus", "evaluation"))
    if corpus.get("test") is not None and evaluation.get("patients") is None:
        return list(patients)
    return [patient for patient in patients if patient in held_out]


def _trained_runs(run: Path) -> list[Path]:
    """Return the files that say how patients were split in the trainings behind ``run``, as far as they are here."""
    adapters = [about.get("adapter folder") for about in read_plan(run).therapists.values()]
    folders = [run, *(expanded(str(adapter)).parent for adapter in adapters if adapter)]
    return [folder / STATE for folder in dict.fromkeys(folders) if (folder / STATE).is_file()]
