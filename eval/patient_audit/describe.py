"""A set of sessions and its comparison with others, as plain data for ``patients_audit.json`` and its pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

from cbtrain.eval.patient_audit.agreement import curve_of
from cbtrain.eval.patient_audit.comparison import Table, differences, energy_test, shared_patients
from cbtrain.eval.patient_audit.measures import MEASURES, Measured, by_patient, measured
from cbtrain.eval.patient_audit.resemblance import resemblance
from cbtrain.eval.simulation.drift import DRIFTS
from cbtrain.transcripts.labels import NO_LABELS
from cbtrain.transcripts.types import Role, Session

SCHEMA = "cbtrain.patient_audit/1"


@dataclass(frozen=True, slots=True)
class SessionSet:
    """Sessions under one ``name``, measured; ``silent``: sessions in which the patient says nothing, which are left
    out."""

    name: str
    source: str
    sessions: Sequence[Measured]
    silent: int

    @property
    def table(self) -> Table:
        return by_patient(self.sessions)


def session_set(
    name: str, source: str, sessions: Iterable[Session], names: Mapping[str, Mapping[str, Role]] | None = None
) -> SessionSet:
    """Return the measured ``sessions``; ``names``: the speakers' names by course."""
    found = [measured(session, (names or {}).get(session.course, NO_LABELS)) for session in sessions]
    kept = [session for session in found if session is not None]
    return SessionSet(name, source, kept, len(found) - len(kept))


def described(one: SessionSet) -> dict[str, Any]:
    """Return a set as plain data: each measure over patients and by patient, drift and endings, agreement by answer (of
    each arm, if there are several), and how alike patients are."""
    table, turns = one.table, sum(len_of(session) for session in one.sessions)
    measures = {}
    for name in MEASURES:
        values = [value for row in table.values() if (value := row[name]) is not None]
        measures[name] = {
            "patients": len(values),
            "mean": fmean(values) if values else None,
            "sd": stdev(values) if len(values) > 1 else None,
            "values": values,
        }
    drift = {kind: sum(session.drift[kind] for session in one.sessions) for kind in DRIFTS}
    arms = sorted({session.arm for session in one.sessions})
    groups = {arm: [s for s in one.sessions if s.arm == arm] for arm in arms} if len(arms) > 1 else {"": one.sessions}
    return {
        "name": one.name,
        "source": one.source,
        "sessions": len(one.sessions),
        "patients": len(table),
        "turns": turns,
        "silent_sessions": one.silent,
        "summaries_left_out": sum(session.summary_cut for session in one.sessions),
        "measures": measures,
        "drift": drift,
        "endings": dict(Counter(session.ending or "not recorded" for session in one.sessions).most_common()),
        "agreement": [{"arm": arm, **asdict(curve_of(sessions))} for arm, sessions in groups.items()],
        "resemblance": asdict(resemblance(one.sessions)),
    }


def compared(one: SessionSet, other: SessionSet, seed: int) -> dict[str, Any]:
    """Return the differences of ``one`` from ``other`` as plain data."""
    table, other_table = one.table, other.table
    return {
        "with": other.name,
        "differences": [asdict(difference) for difference in differences(table, other_table)],
        "all_at_once": asdict(energy_test(table, other_table, seed)),
        "patients_of_both": list(shared_patients(table, other_table)),
    }


def len_of(session: Measured) -> int:
    """Return the number of the patient's turns."""
    return int(session.values["turns"] or 0)


def named_apart(sets: Sequence[SessionSet]) -> list[SessionSet]:
    """Return ``sets`` with different names: those that are named alike are numbered."""
    counts, seen = Counter(one.name for one in sets), Counter[str]()
    named = []
    for one in sets:
        seen[one.name] += 1
        named.append(replace(one, name=f"{one.name} ({seen[one.name]})") if counts[one.name] > 1 else one)
    return named
