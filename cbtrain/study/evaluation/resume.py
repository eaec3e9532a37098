"""Continue the sessions of earlier processes, as far as nothing has changed that decides what is said in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError, first_of
from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.restoring import restore
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.journal import is_count
from cbtrain.settings import MISSING, differences
from cbtrain.study.evaluation.earlier_runs import earlier_settings, settings_of_run
from cbtrain.study.evaluation.protocol import EvaluationProtocol, digest, shown
from cbtrain.study.evaluation.run_context import BEGUN, SETTINGS, RunContext

HOLD_AGAIN = "--hold-again"
MOST_TOLD, CHANGES_TOLD = 6, 3
"""Groups of stale sessions that are told one by one, and changes of each."""


@dataclass(frozen=True, slots=True)
class Stale:
    """Sessions of one arm that were held, or begun, under other settings: how many, with how many turns, and what
    differs."""

    arm: str
    sessions: int
    turns: int
    change: str

    def __str__(self) -> str:
        what = f"{counted(self.sessions, 'session')} of {self.arm} ({counted(self.turns, 'turn')})"
        return f"{what}: {self.change}"


@dataclass(frozen=True, slots=True)
class Restored:
    """``settings``: what is behind each key of today; ``known``: those that the journal has. ``stale``: what was held
    under other settings only. ``raised``: sessions in which turns have an older, lower limit of a patient's turn;
    ``unchecked``: in which turns were said before patients were looked at for drift; ``outside``: sessions that the
    journal holds and that are not planned; ``kept``: those planned that it holds."""

    settings: dict[str, dict[str, Any]]
    known: dict[str, dict[str, Any]]
    stale: list[Stale]
    raised: int
    unchecked: int
    outside: int
    kept: int

    @property
    def told(self) -> str:
        """Return what is stale, in one line."""
        return "; ".join(first_of(list(map(str, self.stale)), MOST_TOLD))


def match(
    sessions: Sequence[SimulatedSession],
    protocol: EvaluationProtocol,
    events: Sequence[Mapping[str, Any]],
    folder: Path,
) -> Restored:
    """Give ``sessions`` their keys, and restore them from ``events`` of the run in ``folder``."""
    known = {event["key"]: event["settings"] for event in events if event["kind"] == SETTINGS}
    settings, same, unchecked = _give_keys(sessions, protocol, known), set[str](), set[str]()
    unchecked |= {old for old, before in known.items() if any(_only_drift(before, now) for now in settings.values())}
    if earlier := earlier_settings(events):
        # Sessions without a key were begun by an older version, under one key for the whole run.
        now = settings_of_run(protocol, folder)
        if now == earlier:
            same = {""}
            unchecked |= {""}
        if same or only_raised(earlier, now, "evaluation", "patient"):
            for session in sessions:
                session.keys |= {""}
    passed_over = restore(sessions, events)
    raised = sum(bool(session.turns and session.keys - same - unchecked) for session in sessions)
    before_drift = sum(bool(session.turns and session.keys & unchecked) for session in sessions)
    planned = {session.id for session in sessions}
    outside = {event["session"] for event in events if event["kind"] == "turn"} - planned
    stale = _stale(sessions, passed_over, known, settings)
    kept = sum(bool(session.turns or session.ending) for session in sessions)
    return Restored(settings, known, stale, raised, before_drift, len(outside), kept)


def refuse_stale(restored: Restored, run: RunContext, *, hold_again: bool) -> None:
    """Say what is stale, and what is kept but not in this plan. Raises UserError if a session that the journal holds
    would be held again under other settings, unless ``hold_again``; the old turns stay in the journal either way, and
    count again if the settings are set back."""
    if restored.stale and not hold_again:
        hint = f"Set it back, choose another --out, or hold them again with {HOLD_AGAIN}: nothing is deleted."
        raise UserError(f"held under other settings: {restored.told}", where=run.folder, hint=hint)
    if restored.stale:
        run.say(f"note: held again under new settings, the old turns stay in {run.journal.path.name}: {restored.told}")
    if not restored.outside:
        return
    what = f"{counted(restored.outside, 'session')} in {run.journal.path.name}"
    if not restored.kept and not hold_again:
        back = "Set therapists, patients, seeds, evaluation.course and simulators (`default: {}`) so that they are"
        hint = f"{back}, choose another --out, or say {HOLD_AGAIN}: nothing is deleted."
        raise UserError(f"none of the {what} is in this plan", where=run.folder, hint=hint)
    others = "therapists, patients, seeds, sessions of a course or simulators"
    run.say(f"note: {what} are of {others} that are not in this plan: kept, and not reported")


def resume(restored: Restored, sessions: Sequence[SimulatedSession], run: RunContext) -> None:
    """Say what continues, and journal the settings behind new keys."""
    if restored.raised:
        run.say(
            f"note: evaluation.patient.max_tokens was raised; turns of {counted(restored.raised, 'session')} said "
            "before keep the old limit, and the report names the change"
        )
    if restored.unchecked and run.config.evaluation.drift != "ignore":
        run.say(
            f"note: turns of {counted(restored.unchecked, 'session')} were said by an older version of cbtrain, which "
            "did not look for drift of the patient"
        )
    for key, value in restored.settings.items():
        if key not in restored.known:
            run.record(SETTINGS, key=key, settings=value)
    begun = any(event["kind"] == BEGUN for event in run.events)
    if begun:
        kept = sum(session.ending is not None for session in sessions)
        part = sum(bool(session.turns) and session.ending is None for session in sessions)
        more = f", {part} begun" if part else ""
        run.say(f"resuming: {kept} of {len(sessions)} sessions are finished{more}")
    if any(session.ending is None for session in sessions):
        run.record("resumed" if begun else BEGUN)


def _give_keys(
    sessions: Sequence[SimulatedSession], protocol: EvaluationProtocol, known: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Set the keys of ``sessions``; return the settings behind each."""
    keys: dict[tuple[str, str, int, str], tuple[str, frozenset[str]]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for session in sessions:
        kind = session.arm, session.patient, session.number, session.simulator
        if kind not in keys:
            now = protocol.session_settings(session)
            key = digest(now)
            settings[key] = now
            also = frozenset(
                old
                for old, before in known.items()
                if only_raised(before, now, "patient", "sampling") or _only_drift(before, now)
            )
            keys[kind] = key, also
        session.key, session.keys = keys[kind]
    return settings


def only_raised(before: Mapping[str, Any], now: Mapping[str, Any], *path: str) -> bool:
    """Return whether nothing but the limit of a patient's turn was changed, and that was raised: otherwise a patient
    that spends all its tokens on thinking could not be mended without losing the run."""
    changes = differences(before, now)
    key = ".".join((*path, "max_tokens"))
    if len(changes) != 1 or changes[0][0] != key:
        return False
    _, old, new = changes[0]
    return is_count(old) and is_count(new) and old < new


def _only_drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether nothing was changed but that patients are looked at for drift, which older versions did not do."""
    return [(key, old) for key, old, _ in differences(before, now)] == [("patient.drift", MISSING)]


def _stale(
    sessions: Iterable[SimulatedSession],
    passed_over: Mapping[str, Counter[str]],
    known: Mapping[str, dict[str, Any]],
    settings: Mapping[str, dict[str, Any]],
) -> list[Stale]:
    """Return the sessions that the journal holds under other settings only, by arm and change."""
    groups: dict[tuple[str, str], list[int]] = {}
    for session in sessions:
        if session.turns or session.ending or session.id not in passed_over:
            continue
        old, turns = passed_over[session.id].most_common(1)[0]
        change = "an older version of cbtrain held them under other settings"
        if old in known:
            changes = differences(known[old], settings[session.key])
            told = [f"{key} was {shown(before)}, and is {shown(now)}" for key, before, now in changes]
            change = ", ".join(first_of(told, CHANGES_TOLD))
        groups.setdefault((session.arm, change), []).append(turns)
    return [Stale(arm, len(turns), sum(turns), change) for (arm, change), turns in groups.items()]
