"""Who is treated: patients of a library or of a file, or those of a corpus that no therapist was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.files import write_atomic
from cbtrain.patients.case import CASE_SCHEMA, Case
from cbtrain.patients.patients import patients_of
from cbtrain.patients.profile import profile_of
from cbtrain.study.corpus import StudyCorpus
from cbtrain.study.run_files import PATIENTS
from cbtrain.transcripts.profile import Profile


@dataclass(frozen=True)
class Treated:
    """``profiles``: who is treated, by id. ``cases``: all that is known of those who come from a library or a file;
    ``source`` names that, "" for a corpus."""

    profiles: Mapping[str, Profile | None]
    cases: Mapping[str, Case] = field(default_factory=dict)
    source: str = ""

    @property
    def names(self) -> dict[str, str]:
        """Return the names of the patients by id."""
        return {patient: profile.name if profile else patient for patient, profile in self.profiles.items()}

    def summary(self, corpus: StudyCorpus | None) -> dict[str, Any]:
        """Return where the patients are from, for the report."""
        treated = list(self.profiles)
        if corpus is None:
            return {"path": self.source, "format": CASE_SCHEMA, "split": {"treated": treated}}
        others = [course.id for course in corpus.split.test if course.id not in treated]
        return corpus.summary | {"split": {"treated": treated, "not treated": others}}

    def write(self, folder: Path) -> None:
        """Write the cases to ``folder``, one a line: an audit of the patients compares sessions with them."""
        if self.cases:
            records = ({"schema": CASE_SCHEMA, **case.model_dump(mode="json")} for case in self.cases.values())
            lines = (json.dumps(record, ensure_ascii=False) for record in records)
            write_atomic(folder / PATIENTS, "".join(f"{line}\n" for line in lines))


def named_patients(config: StudyConfig, say: Callable[[str], None]) -> Treated | None:
    """Return the patients that ``evaluation.patients`` names; None if it names none. ``say`` takes what is guessed or
    to be looked at. Raises UserError, one for all that is wrong with them."""
    settings = config.evaluation.patients
    if settings is None:
        return None
    chosen, most = patients_of(settings, config.seed, say), config.evaluation.max_patients
    if most is not None and most < len(chosen):
        say(f"evaluation.max_patients takes the first {most} of {len(chosen)} patients")
    cases = {case.id: case for case in chosen[:most]}
    source = f"library {settings.library}" if settings.library else str(settings.file)
    return Treated({name: profile_of(case) for name, case in cases.items()}, cases, source)
