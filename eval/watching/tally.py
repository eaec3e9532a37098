"""The state of an evaluation, from the records of its journal: each is counted once, in their order.

The process that evaluates feeds its tally as it writes (``Journal.listener``), ``cbtrain watch`` feeds another from the
file: both know the same.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from cbtrain.eval.watching.rate import KEPT_S, Rate
from cbtrain.transcripts.types import FAILED

Record = dict[str, Any]
State = Literal["begun", "active", "done", "failed"]
"""Of a session: without an ending and held by no process; held; ended; ended by a failure."""

RATE_LIMITED = re.compile(r"(HTTP \d+, )?rate limit: ")
"""How the problem of a request begins that was answered with 429."""

JUDGE = "judge"
"""The role whose costs grow with ratings, before the judge's name if there are several; those of all others grow with
turns."""


@dataclass(slots=True)
class Arm:
    """The sessions of one therapist and their turns, by state. ``planned`` is None if the journal does not say: those
    of older versions do not."""

    planned: int | None = None
    sessions: Counter[State] = field(default_factory=Counter)
    turns: Counter[State] = field(default_factory=Counter)

    @property
    def ended(self) -> int:
        return self.sessions["done"] + self.sessions["failed"]

    @property
    def total(self) -> int:
        """Sessions planned, or seen if no plan is known."""
        return self.sessions.total() if self.planned is None else self.planned


@dataclass(slots=True)
class Session:
    arm: Arm
    name: str
    state: State = "begun"
    turns: int = 0


@dataclass(slots=True)
class Ratings:
    """Ratings by one judge. ``earlier`` of those ``planned`` were there before; ``latest`` maps the key of each one
    since to whether it has scores."""

    planned: int | None = None
    judge: str = ""
    earlier: int = 0
    latest: dict[str, bool] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return self.earlier + len(self.latest)

    @property
    def unrated(self) -> int:
        """Ratings since the plan that have no scores."""
        return sum(not rated for rated in self.latest.values())


@dataclass(slots=True)
class Spent:
    """Costs in one role. ``unpriced`` answers came from a model whose price is not known."""

    dollars: float = 0.0
    requests: int = 0
    unpriced: int = 0


@dataclass(slots=True)
class Ended:
    """How the process that was the last to write has ended: ``done``, ``stopped`` or ``failed``; ``why`` names the
    signal or the error."""

    how: str
    why: str = ""


@dataclass(slots=True)
class Tally:
    """``lock`` is to be held while its fields are read; :meth:`add` takes it. Times are seconds of the Unix clock.

    ``time`` is that of the last record, ``since`` when the phase began. ``plan_known``: the journal says how many
    sessions there are to be; ``tells_end``: it is of a version that also writes how a process ends. ``waiting`` maps
    sessions that are held to when they began to wait for their next turn, and ``requests`` paid requests without an end
    to when they were sent; of both the oldest is the first. ``unread`` counts records that lack something.
    """

    lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)
    records: int = 0
    time: float = 0.0
    phase: Literal["starting", "simulating", "judging"] = "starting"
    since: float = 0.0
    ended: Ended | None = None
    plan_known: bool = False
    tells_end: bool = False
    arms: dict[str, Arm] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    max_turns: int | None = None
    ratings: Ratings = field(default_factory=Ratings)
    budget: float | None = None
    spent: dict[str, Spent] = field(default_factory=dict)
    requests: dict[int, float] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    rate_limited: int = 0
    failed_requests: int = 0
    turn_rate: Rate = field(default_factory=Rate)
    token_rate: Rate = field(default_factory=Rate)
    rating_rate: Rate = field(default_factory=Rate)
    unread: int = 0
    _ended_requests: set[int] = field(default_factory=set)

    def add(self, record: Record) -> None:
        """Count the next record. Kinds that are not known change nothing; nothing is raised."""
        with self.lock:
            self.records += 1
            try:
                self.time = datetime.fromisoformat(record["time"]).timestamp()
                self.ended = None
                count = COUNTED.get(record["kind"])
                if count:
                    count(self, record)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # another program has written it
                self.unread += 1

    @property
    def turns(self) -> int:
        return sum(arm.turns.total() for arm in self.arms.values())

    @property
    def complete(self) -> bool:
        """Whether all that is known to be planned has been done."""
        ratings = self.ratings
        sessions = all(arm.ended >= arm.total for arm in self.arms.values())
        return sessions and (ratings.planned is None or ratings.done >= ratings.planned)

    def turns_left(self) -> float | None:
        """Return how many turns are still to be said: sessions without an ending become as long as those that have one
        and did not fail, or as ``max_turns`` allows; None if neither is known."""
        arms = self.arms.values()
        done, done_turns = sum(arm.sessions["done"] for arm in arms), sum(arm.turns["done"] for arm in arms)
        length = done_turns / done if done_turns else self.max_turns
        if length is None:
            return None
        left = sum(max(arm.total - arm.ended, 0) for arm in arms)
        said = sum(arm.turns["begun"] + arm.turns["active"] for arm in arms)
        return max(left * length - said, left)

    def share(self, role: str) -> float | None:
        """Return which share (0 to 1) of the work that ``role`` is paid for has been done; None if it is not known."""
        if role.partition(" ")[0] == JUDGE:
            planned = self.ratings.planned
            return min(self.ratings.done / planned, 1.0) if planned else None
        left = self.turns_left()
        return None if left is None or not self.turns else self.turns / (self.turns + left)

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds until the present phase ends if it continues as in the last minutes; None if that is not
        known."""
        if self.phase == "judging":
            planned, rate = self.ratings.planned, self.rating_rate.per_second(now, KEPT_S)
            left = None if planned is None else float(max(planned - self.ratings.done, 0))
        else:
            left, rate = self.turns_left(), self.turn_rate.per_second(now, KEPT_S)
        return left / rate if left is not None and rate else None

    def standing(self, *, written: bool) -> str:
        """Return in words how the run stands; ``written``: a process has its journal open."""
        if written:
            return "running"
        if self.ended:
            return {"done": "finished", "stopped": f"stopped by {self.ended.why}"}.get(self.ended.how, "failed")
        if not self.records:
            return "not begun"
        if self.tells_end:
            return "killed"
        return "ended" if self.complete else "stopped or killed"

    def _begin_phase(self, phase: Literal["simulating", "judging"], *, anew: bool = False) -> None:
        if anew or self.phase != phase:
            self.phase, self.since = phase, self.time

    def _session(self, name: str, arm: str | None = None) -> Session:
        """Return the session ``name``. Sessions are called PATIENT.ARM.SEED if nothing else says whose they are."""
        if name not in self.sessions:
            arm = arm or (name.split(".")[-2] if name.count(".") >= 2 else "?")
            self.sessions[name] = session = Session(self.arms.setdefault(arm, Arm()), name)
            session.arm.sessions["begun"] += 1
        return self.sessions[name]

    def _move(self, session: Session, state: State) -> None:
        for counts, count in ((session.arm.sessions, 1), (session.arm.turns, session.turns)):
            counts[session.state] -= count
            counts[state] += count
        session.state = state
        self.waiting.pop(session.name, None)
        if state == "active":
            self.waiting[session.name] = self.time

    def _release_sessions(self) -> None:
        """No process holds a session any more."""
        for name in list(self.waiting):
            self._move(self.sessions[name], "begun")

    def _process_began(self, record: Record) -> None:
        self._release_sessions()
        self.phase, self.since, self.plan_known = "starting", self.time, False
        for arm in self.arms.values():
            arm.planned = None
        for rate in (self.turn_rate, self.token_rate, self.rating_rate):
            rate.restart(self.time)

    def _sessions_planned(self, record: Record) -> None:
        self.arms = {name: arm for name, arm in self.arms.items() if name in record["arms"]}  # of another plan
        for name, sessions in record["arms"].items():
            self.arms.setdefault(name, Arm()).planned = int(sessions)
        self.max_turns, self.plan_known, self.tells_end = int(record["max_turns"]), True, True
        self._begin_phase("simulating", anew=True)

    def _session_started(self, record: Record) -> None:
        self._move(self._session(record["session"], record["arm"]), "active")
        self._begin_phase("simulating")

    def _turn(self, record: Record) -> None:
        index, tokens = int(record["index"]), int(record.get("facts", {}).get("completion_tokens", 0))
        session = self._session(record["session"])
        if index < session.turns:
            return
        session.arm.turns[session.state] += index + 1 - session.turns
        session.turns = index + 1
        self.turn_rate.add(self.time)
        self.token_rate.add(self.time, tokens)
        if session.state == "active":
            self._move(session, "active")  # it waits anew

    def _session_finished(self, record: Record) -> None:
        self._move(self._session(record["session"]), "failed" if record["ending"] in FAILED else "done")

    def _ratings_planned(self, record: Record) -> None:
        judge = str(record.get("judge", ""))
        self.ratings = Ratings(int(record["ratings"]), judge, int(record.get("earlier", 0)))
        self.tells_end = True
        self.rating_rate.restart(self.time)
        self._begin_phase("judging", anew=True)

    def _rating(self, record: Record) -> None:
        self.ratings.latest[record["key"]] = record["score"]["status"] == "ok"
        self.rating_rate.add(self.time)
        self._begin_phase("judging")

    def _budget(self, record: Record) -> None:
        self.budget = None if record["dollars"] is None else float(record["dollars"])

    def _request_started(self, record: Record) -> None:
        self.requests[record["request"]] = self.time

    def _request_ended(self, record: Record) -> None:
        """Book it, whether its outcome is known or not."""
        number, role, dollars = record["request"], record["role"], float(record["dollars"])
        self.requests.pop(number, None)
        if number in self._ended_requests:
            return
        self._ended_requests.add(number)
        if record.get("outcome") != "failed":
            spent = self.spent.setdefault(role, Spent())
            spent.dollars += dollars
            spent.requests += 1
            spent.unpriced += not record.get("priced", True)
        problem = record.get("problem") or ""
        limited = bool(RATE_LIMITED.match(problem))
        self.rate_limited += limited
        self.failed_requests += bool(problem) and not limited

    def _limit_change(self, record: Record) -> None:
        self.limits[record["api"]] = int(record["limit"])

    def _run_ended(self, record: Record) -> None:
        self._release_sessions()
        self.ended = Ended(record["how"], " ".join(record["why"].split()))


COUNTED: dict[str, Callable[[Tally, Record], None]] = {
    "run_started": Tally._process_began,
    "resumed": Tally._process_began,
    "sessions_planned": Tally._sessions_planned,
    "session_started": Tally._session_started,
    "turn": Tally._turn,
    "session_finished": Tally._session_finished,
    "ratings_planned": Tally._ratings_planned,
    "rating": Tally._rating,
    "budget": Tally._budget,
    "request_started": Tally._request_started,
    "request_ended": Tally._request_ended,
    "unknown_outcome": Tally._request_ended,
    "limit_change": Tally._limit_change,
    "run_ended": Tally._run_ended,
}
"""What a record of each kind changes."""
