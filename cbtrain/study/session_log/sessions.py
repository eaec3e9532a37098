"""Read the sessions of a run from its journal, also while they are held."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.simulation.after_session import QUESTIONNAIRE
from cbtrain.eval.simulation.runner import SUMMARY
from cbtrain.journal import Record, read
from cbtrain.providers.exchanges.reading import Exchange, read_exchanges
from cbtrain.study.evaluation.run_context import SETTINGS, SHAPES
from cbtrain.study.run_files import EVENTS, REQUESTS

MOST_NAMED = 4
"""Sessions that are named when a word fits several."""


@dataclass(slots=True)
class LoggedTurn:
    """A turn as the journal has it. ``facts`` are empty in journals of older versions; ``ids`` are the tokens that a
    model on this machine has drawn."""

    index: int
    role: str
    text: str
    facts: dict[str, Any]
    ids: list[int]

    @property
    def requests(self) -> list[str]:
        """Return the names of the requests that it is the answer to."""
        return _texts(self.facts.get("requests"))


@dataclass(slots=True)
class LoggedSession:
    """A session. ``ending`` is None until it has ended; ``unsaid``: the facts of a last answer that became no turn;
    ``ratings`` are scores of judges, ``questionnaires`` the patient's own answers, as the journal has them.
    ``summary``: what was written after it, with which the next session of its course begins.
    ``settings``: what decided it. ``other_turns`` counts turns that were said under other settings before, and are not
    those shown."""

    id: str
    arm: str = ""
    patient: str = ""
    seed: int | None = None
    turns: list[LoggedTurn] = field(default_factory=list)
    ending: str | None = None
    error: str | None = None
    unsaid: dict[str, Any] = field(default_factory=dict)
    ratings: list[dict[str, Any]] = field(default_factory=list)
    questionnaires: list[dict[str, Any]] = field(default_factory=list)
    summary: LoggedTurn | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    other_turns: int = 0

    @property
    def requests(self) -> list[str]:
        """Return the names of all requests that have to do with it."""
        rated = [request for rating in self.ratings for request in _texts(rating.get("requests"))]
        asked = [request for one in self.questionnaires for request in _texts(one["facts"].get("requests"))]
        asked += self.summary.requests if self.summary else []
        said = [name for turn in self.turns for name in turn.requests]
        return [*said, *_texts(self.unsaid.get("requests")), *asked, *rated]

    def settings_of(self, role: str) -> dict[str, Any]:
        """Return what decided what the speaker of ``role`` said; empty in journals of older versions."""
        settings = self.settings.get(role)
        return settings if isinstance(settings, dict) else {}

    def system_of(self, role: str) -> str | None:
        """Return the system prompt of a speaker on this machine, None if it was not recorded."""
        said = [turn.facts for turn in self.turns if turn.role == role] + [self.unsaid]
        recorded = next((facts["system"] for facts in said if isinstance(facts.get("system"), str)), None)
        planned = self.settings_of(role).get("system prompt")
        return recorded if recorded is not None else planned if isinstance(planned, str) else None


def read_sessions(folder: Path) -> dict[str, LoggedSession]:
    """Return the sessions in the journal of the run in ``folder`` by their id, in the order in which they began; those
    that were only rated, too. Raises UserError if there is no journal, or if it is damaged."""
    if not (folder / EVENTS).is_file():
        raise UserError(f"no {EVENTS} in it", where=folder, hint="Name the folder of an evaluation.")
    log = _Log()
    for event in read(folder / EVENTS, SHAPES):
        log.add(event)
    return {name: log.of(name) for name in log.latest}


class _Log:
    """Sessions by id and key: under each key other turns may have been said."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, LoggedSession]] = {}
        self.latest: dict[str, str] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self.ratings: dict[str, list[dict[str, Any]]] = {}
        self.questionnaires: dict[str, list[dict[str, Any]]] = {}

    def add(self, event: Record) -> None:
        kind = event["kind"]
        if kind == SETTINGS:
            self.settings[event["key"]] = event["settings"]
        elif kind == "session_started":
            self.latest[event["session"]] = event.get("key", "")
            session = self._session(event["session"])
            session.ending, session.error, session.unsaid = None, None, {}
            session.arm, session.patient = str(event.get("arm", "")), str(event.get("patient", ""))
            session.seed = event["seed"] if isinstance(event.get("seed"), int) else None
        elif kind == "turn":
            session = self._session(event["session"])
            if event["index"] == len(session.turns):
                facts, ids = event.get("facts", {}), event.get("ids", [])
                session.turns.append(LoggedTurn(event["index"], event["role"], event["text"], facts, ids))
        elif kind == SUMMARY:
            session = self._session(event["session"])
            session.summary = LoggedTurn(len(session.turns), "therapist", event["text"], event.get("facts", {}), [])
        elif kind == "session_finished":
            session = self._session(event["session"])
            session.ending, session.error, session.unsaid = event["ending"], event["error"], event.get("facts", {})
        elif kind == QUESTIONNAIRE:
            fields = {name: event[name] for name in ("questionnaire", "status", "answers", "problem", "facts")}
            self.questionnaires.setdefault(event["session"], []).append(fields)
        elif kind == "rating":
            score = event["score"]
            session = self._session(score["session_id"])
            session.arm, session.patient, session.seed = score["arm"], score["patient"], score["seed"]
            self.ratings.setdefault(session.id, []).append(score)

    def of(self, name: str) -> LoggedSession:
        session = self._session(name)
        session.settings = self.settings.get(self.latest[name], {})
        session.ratings = self.ratings.get(name, [])
        session.questionnaires = self.questionnaires.get(name, [])
        session.other_turns = sum(len(other.turns) for other in self.sessions[name].values()) - len(session.turns)
        return session

    def _session(self, name: str) -> LoggedSession:
        key = self.latest.setdefault(name, "")
        return self.sessions.setdefault(name, {}).setdefault(key, LoggedSession(name))


def find_session(sessions: Mapping[str, LoggedSession], word: str, folder: Path) -> LoggedSession:
    """Return the session that ``word`` names, or the only one that begins with it or, if none does, has it in its id.
    Raises UserError."""
    if word in sessions:
        return sessions[word]
    fitting = [name for name in sessions if name.startswith(word)] or [name for name in sessions if word in name]
    if len(fitting) == 1:
        return sessions[fitting[0]]
    if not fitting:
        close = difflib.get_close_matches(word, sessions, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"`cbtrain show {folder}` lists them."
        raise UserError(f"no session {word!r}", where=folder, hint=hint)
    more = f" and {len(fitting) - MOST_NAMED} more" if fitting[MOST_NAMED:] else ""
    names = ", ".join(fitting[:MOST_NAMED])
    raise UserError(f"{word!r} fits {len(fitting)} sessions", where=folder, hint=f"Name one: {names}{more}.")


@dataclass(frozen=True, slots=True)
class Requests:
    """The exchanges of some sessions by the names of their requests. ``kept``: whether the run has kept any."""

    exchanges: Mapping[str, list[Exchange]]
    damaged: int
    kept: bool

    def of(self, names: list[str]) -> Iterator[Exchange]:
        """Yield every attempt at the requests ``names``."""
        for name in names:
            yield from self.exchanges.get(name, [])


def read_requests(folder: Path, names: list[str]) -> Requests:
    """Return what the run in ``folder`` has kept of the requests ``names``. Raises UserError if it cannot be read."""
    path = folder / REQUESTS
    exchanges, damaged = read_exchanges(path, names)
    return Requests(exchanges, damaged, path.is_file())


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
