"""A run's paid requests, each written before it is sent and again when it has ended.

The entries are events in the run's journal. A process that is killed leaves requests that began and did not end: they
may have been answered and billed. The next process that continues the run books all money reserved for each of them
(``unknown_outcome``), and asks again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

from cbtrain.errors import UserError
from cbtrain.journal import Check, Record, Shape, is_amount, is_count, is_flag, is_text, or_none
from cbtrain.providers.costs.budget import Budget, Reservation
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.types import Usage
from cbtrain.stopping import protect


def _is_usage(value: Any) -> bool:
    names = {count.name for count in fields(Usage)}
    return isinstance(value, dict) and value.keys() <= names and all(map(is_count, value.values()))


def _ended(record: Record) -> Mapping[str, Check]:
    """The fields of ``request_ended``, of which an answer has more."""
    outcomes = ("answered", "unknown", "failed")
    shape = {**REQUEST, "outcome": lambda value: value in outcomes, "dollars": is_amount}
    if record.get("outcome") == "answered":
        shape |= {"model": is_text, "usage": _is_usage, "priced": is_flag}
    return shape


REQUEST: dict[str, Check] = {"request": is_count, "role": is_text}
SHAPES: dict[str, Shape] = {
    "request_started": {**REQUEST, "dollars": is_amount, "key": is_text},
    "request_ended": _ended,
    "unknown_outcome": {**REQUEST, "dollars": is_amount},
    "request_reused": {"role": is_text},
    "budget": {"dollars": or_none(is_amount)},
}
"""The fields that :meth:`Ledger.resume` needs of a run's events."""


class Events(Protocol):
    """The run's journal. The ledger writes to it from its own thread."""

    def append(self, kind: str, *, sync: bool = True, **fields: Any) -> object:
        """Write an event; with ``sync``, it is on disk on return."""
        ...

    def sync(self) -> None:
        """Return once all events are on disk."""
        ...


@dataclass(slots=True, eq=False)
class Entry:
    """One attempt at a request. ``number`` is 0 until the ledger has written it."""

    role: str
    price: Price | None
    reservation: Reservation
    number: int = 0


@dataclass(frozen=True, slots=True)
class Billing:
    """Where a provider's requests are booked: for ``role`` (patient, judge, …), at ``price`` (None: not known), in
    ``ledger``."""

    role: str
    price: Price | None
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Who counts the tokens of a prompt: a model at an address, asked in one role."""

    role: str
    api: str
    model: str


@dataclass(frozen=True, slots=True)
class _Write:
    kind: str
    fields: dict[str, Any]
    sync: bool
    done: Future[None] = field(default_factory=Future)


class Ledger:
    """Books requests on ``budget`` and, if given, in the run's ``events``.

    Only :meth:`begin` waits for the disk: an end that is lost in a crash counts as unknown, which is never too little.
    Events that arrive while the disk is busy are written together, and synced once.
    Use it as a context manager: leaving it waits until all events are written.
    """

    def __init__(self, budget: Budget, events: Events | None = None) -> None:
        self.budget, self._events = budget, events
        self._last = self.repeated = 0
        self.counted: dict[TokenCounter, list[tuple[int, int]]] = defaultdict(list)
        """What earlier processes of this run have learnt of each API's counting: tokens of a prompt as they were
        estimated, and as the API counted them, in order."""
        self._pending: deque[_Write] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)

    def resume(self, earlier_events: Iterable[Mapping[str, Any]]) -> int:
        """Read the events of earlier processes of this run. Return how many requests had no end. A request counts once:
        ``repeated`` are the ends that came again. A budget that these events do not have is written, for those who
        watch the run. Raises UserError if a request begins or ends in two ways."""
        cap: float | None = None
        starts: dict[int, Mapping[str, Any]] = {}
        ends: dict[int, Mapping[str, Any]] = {}
        for event in earlier_events:
            kind = event.get("kind")
            if kind == "request_reused":
                self.budget.roles[event["role"]].reused += 1
            if kind == "budget":
                cap = event["dollars"]
            if kind not in ("request_started", "request_ended", "unknown_outcome"):
                continue
            number = event["request"]
            self._last = max(self._last, number)
            same = starts if kind == "request_started" else ends
            content = {name: value for name, value in event.items() if name != "time"}
            if number in same or number in ends:
                if number not in same:
                    raise self._damaged(f"request {number} begins after its end")
                if same[number] != content:
                    raise self._damaged(f"request {number} {'begins' if same is starts else 'ends'} in two ways")
                self.repeated += same is ends
                continue
            same[number] = content
            if kind == "request_ended":
                self._restore(event, starts.get(number, {}))
            elif kind == "unknown_outcome":
                self.budget.book_lost(event["role"], event["dollars"])
        begun = [event for number, event in starts.items() if number not in ends]
        for event in begun:
            role, dollars = event["role"], event["dollars"]
            self.budget.book_lost(role, dollars)
            self.note("unknown_outcome", request=event["request"], role=role, dollars=dollars, key=event["key"])
        if self.budget.cap != cap:
            self.note("budget", dollars=self.budget.cap)
        return len(begun)

    def _damaged(self, problem: str) -> UserError:
        hint = "Restore the file from a copy; what was paid for is in it."
        return UserError(problem, where=getattr(self._events, "path", "the run's events"), hint=hint)

    async def reserve(self, role: str, price: Price | None, prompt_tokens: int, max_tokens: int) -> Entry:
        """Reserve money. Raises as :meth:`Budget.reserve`."""
        return Entry(role, price, await self.budget.reserve(role, price, prompt_tokens, max_tokens))

    async def begin(self, entry: Entry, key: str, counter: TokenCounter | None = None, tokens: int = 0) -> None:
        """Write ``request_started`` with the prompt's estimated ``tokens`` and who will count them; on disk on return.
        Raises UserError if it cannot be written."""
        if self._events is None:
            return
        self._last += 1
        entry.number = self._last
        written = self._write(
            "request_started",
            sync=True,
            request=entry.number,
            role=entry.role,
            dollars=entry.reservation.dollars,
            key=key,
            **({"api": counter.api, "model": counter.model, "tokens": tokens} if counter else {}),
        )
        assert written is not None
        # Shielded: a cancelled caller must not leave a begin that its end overtakes.
        try:
            await protect(asyncio.wrap_future(written))
        except OSError as error:
            hint = "Free some space and run the same command again: nothing is lost."
            problem = f"a request cannot be recorded before it is sent ({error.strerror})"
            raise UserError(problem, where=error.filename or "the run's events", hint=hint) from None

    def answered(self, entry: Entry, usage: Usage, model: str, latency_s: float) -> None:
        """Book an answer at its actual cost."""
        dollars = self.budget.settle(entry.reservation, entry.price, usage)
        self.budget.roles[entry.role].models[model] += 1
        self._end(
            entry,
            "answered",
            dollars=dollars,
            priced=entry.price is not None,
            model=model,
            usage=asdict(usage),
            latency_s=round(latency_s, 3),
        )

    def unknown(self, entry: Entry, problem: str) -> None:
        """Book a request that was sent and may or may not have been answered."""
        if entry.reservation.open:
            self._end(entry, "unknown", dollars=self.budget.lose(entry.reservation), problem=problem)

    def release(self, entry: Entry, problem: str = "") -> None:
        """Release the money for a request that was not sent, or that the API has not worked on."""
        if entry.reservation.open:
            self.budget.release(entry.reservation)
            self._end(entry, "failed", dollars=0.0, problem=problem)

    def reused(self, role: str, key: str) -> None:
        """Count an answer that came from the cache."""
        self.budget.roles[role].reused += 1
        self.note("request_reused", role=role, key=key)

    def note(self, kind: str, **fields: Any) -> None:
        """Write another event, without waiting for the disk."""
        self._write(kind, **fields)

    def _end(self, entry: Entry, outcome: str, **fields: Any) -> None:
        if entry.number:
            self._write("request_ended", request=entry.number, role=entry.role, outcome=outcome, **fields)

    def _write(self, kind: str, *, sync: bool = False, **fields: Any) -> Future[None] | None:
        if self._events is None:
            return None
        write = _Write(kind, fields, sync)
        self._pending.append(write)
        self._thread.submit(self._flush)
        return write.done

    def _flush(self) -> None:
        """Write all pending events: also later ones than this call was submitted for, or none."""
        assert self._events
        writes = [self._pending.popleft() for _ in range(len(self._pending))]
        written = []
        for write in writes:
            try:
                self._events.append(write.kind, sync=False, **write.fields)
                written.append(write)
            except Exception as error:  # of this event only: the others are written
                write.done.set_exception(error)
        try:
            if any(write.sync for write in written):
                self._events.sync()
        except Exception as error:
            for write in written:
                write.done.set_exception(error)
        else:
            for write in written:
                write.done.set_result(None)

    def _restore(self, event: Mapping[str, Any], started: Mapping[str, Any]) -> None:
        role = self.budget.roles[event["role"]]
        if event["outcome"] == "unknown":
            self.budget.book_lost(event["role"], event["dollars"])
        elif event["outcome"] == "answered":
            role.models[event["model"]] += 1
            usage = Usage(**event["usage"])
            role.add(usage, event["dollars"], priced=event["priced"])
            if is_count(started.get("tokens")):  # older versions did not write it
                counter = TokenCounter(event["role"], str(started.get("api")), str(started.get("model")))
                self.counted[counter].append((started["tokens"], usage.prompt_tokens))
