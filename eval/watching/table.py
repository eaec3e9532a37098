"""An evaluation's state in a few lines: on a terminal a table of at most :data:`MOST_ROWS` rows, in a log one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from cbtrain.eval.watching.tally import Arm, Tally

MOST_ROWS = 12
FRAMES_PER_SECOND = 2
LINE_EVERY_S = 30.0
"""Seconds between two lines of a log."""

RATE_S = 60.0
"""Seconds over which rates are shown."""

LABEL = 10
"""Columns of the labels of the rows below the therapists."""

STYLES = {"running": "green", "finished": "bold green", "ended": "bold"}
"""Of a run's standing; all others are red."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests to APIs: those sent and not answered, the age of the oldest of them, how many may be sent at once, and
    why others wait."""

    sent: int
    oldest_s: float | None = None
    limit: int | None = None
    waits: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Process:
    """What only the process that evaluates knows: by how much its event loop is late, and the requests of all its APIs
    (the journal has the paid ones only)."""

    lag_s: float
    requests: Requests | None = None


@dataclass(frozen=True, slots=True)
class View:
    """``tally`` at the time ``now``, by the Unix clock; ``written``: a process has the journal open."""

    tally: Tally
    now: float
    written: bool
    process: Process | None = None

    @property
    def requests(self) -> Requests:
        """Return the requests under way, as the process knows them if it is asked, else as the journal does."""
        if self.process and self.process.requests:
            return self.process.requests
        tally = self.tally
        if not self.written:
            return Requests(0)
        oldest = next(iter(tally.requests.values()), None)
        age = None if oldest is None else max(self.now - oldest, 0.0)
        return Requests(len(tally.requests), age, sum(tally.limits.values()) or None)


def table(view: View, width: int, rows: int | None = MOST_ROWS) -> list[Text]:
    """Return the lines of the table, each at most ``width`` columns wide; at most ``rows``, or as many as there is
    something to say (None)."""
    with view.tally.lock:
        head = _head(view, width)
        below = [
            Text(f"{label:{LABEL}}" + fit(pieces, width - LABEL), style="yellow" if label == "note" else "")
            for label, pieces in _below(view)
            if pieces
        ]
        room = None if rows is None else max(rows - 1 - len(below), 3)
        lines = [head, *_therapists(view, width, room), *below]
    for text in lines:
        text.no_wrap, text.overflow = True, "crop"
    return lines[:rows]


def line(view: View) -> str:
    """Return the state in one line, for a log."""
    with view.tally.lock:
        below = dict(_below(view))
        facts = [*_progress(view), *below["speed"], *below["spent"], *below["requests"], *below["note"]]
        return f"{view.tally.standing(written=view.written)}: " + ", ".join(facts)


def fit(pieces: Sequence[str], width: int) -> str:
    """Return as many of ``pieces`` from the first on as fit into ``width`` columns, joined by commas."""
    text = ""
    for piece in pieces:
        longer = f"{text}, {piece}" if text else piece
        if cell_len(longer) > width:
            break
        text = longer
    return text or set_cell_size(pieces[0], width)


def shortened(name: str, width: int) -> str:
    """Return ``name`` in exactly ``width`` columns; one that is too long keeps its beginning and its end."""
    if cell_len(name) > width:
        end = (width - 1) // 2
        name = f"{name[: width - 1 - end]}…{name[len(name) - end :]}"
    return set_cell_size(name, width)


def span(seconds: float) -> str:
    """Return a time in its two largest units, as ``41 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 100:
        return f"{max(seconds, 0.0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def dollars(amount: float) -> str:
    """Return US dollars with cents; small amounts keep four digits."""
    return f"${amount:,.{4 if 0 < amount < 0.1 else 2}f}"


def _head(view: View, width: int) -> Text:
    standing = view.tally.standing(written=view.written)
    start = f"{standing}: "
    text = Text().append(start[:width], style=STYLES.get(standing, "bold red"))
    left = width - cell_len(start)
    return text.append(fit(_progress(view), left)) if left > 0 else text


def _progress(view: View) -> list[str]:
    """Return how far sessions and ratings are, and how long they will take."""
    tally, ratings, pieces = view.tally, view.tally.ratings, []
    if tally.arms:
        ended, total = sum(arm.ended for arm in tally.arms.values()), sum(arm.total for arm in tally.arms.values())
        pieces.append(f"{ended:,} of {total:,} {'' if tally.plan_known else 'begun '}sessions")
    if ratings.planned is not None or ratings.done:
        of = "" if ratings.planned is None else f" of {ratings.planned:,}"
        pieces.append(f"{ratings.done:,}{of} ratings")
    if not pieces:
        pieces.append("no session is recorded")
    if view.written and tally.time:
        left = tally.seconds_left(view.now)
        pieces += [f"about {span(left)} left"] if left else []
        pieces.append(f"{span(view.now - tally.since)} so far")
    pieces += [f"{ratings.unrated:,} without scores"] if ratings.unrated else []
    return [*pieces, f"judge {ratings.judge}"] if ratings.judge else pieces


def _therapists(view: View, width: int, room: int | None) -> list[Text]:
    """Return the table of therapists in at most ``room`` rows. If there are more, those with active sessions come
    first, and the others are summed in the last row."""
    arms = view.tally.arms
    if not arms:
        return []
    shown, others = list(arms), []
    if room is not None and len(arms) + 1 > room:
        shown.sort(key=lambda name: not arms[name].sessions["active"])
        shown, others = shown[: room - 2], shown[room - 2 :]
    rows = [(name, _cells(view, [arms[name]])) for name in shown]
    if others:
        rows.append((f"{len(others)} others", _cells(view, [arms[name] for name in others])))
    titles = ["done", "active" if view.written else "begun", "failed", "of", "turns"]
    widths = [max(len(title), *(len(cells[at]) for _, cells in rows)) for at, title in enumerate(titles)]
    longest = max(len("therapist"), *(cell_len(name) for name, _ in rows))
    names = max(min(longest, width - sum(widths) - 2 * len(widths)), 8)
    lines = []
    for number, (name, cells) in enumerate([("therapist", titles), *rows]):
        text = Text(shortened(name, names), style="" if number else "bold")
        for cell, title, columns in zip(cells, titles, widths, strict=True):
            text.append(f"  {cell:>{columns}}", style="red" if title == "failed" and cell not in ("0", title) else None)
        lines.append(text)
    return lines


def _cells(view: View, arms: Iterable[Arm]) -> list[str]:
    """Return the numbers of ``arms`` together. Without a process that holds them, active sessions are begun ones."""
    counts = [0] * 5
    for arm in arms:
        sessions = arm.sessions
        held = sessions["active"] + (0 if view.written else sessions["begun"])
        for at, count in enumerate((sessions["done"], held, sessions["failed"], arm.total, arm.turns.total())):
            counts[at] += count
    return [f"{count:,}" for count in counts]


def _below(view: View) -> list[tuple[str, list[str]]]:
    """Return the rows below the therapists: a label, and pieces of which the first are the most important."""
    return [
        ("speed", _speed(view)),
        ("spent", _spent(view)),
        ("requests", _requests(view)),
        ("oldest", _oldest(view)),
        ("note", _notes(view)),
    ]


def _speed(view: View) -> list[str]:
    if not view.written:
        return []
    tally, process, pieces = view.tally, view.process, []
    if tally.phase == "judging":
        rate = tally.rating_rate.per_second(view.now, RATE_S)
        pieces += [] if rate is None else [f"{60 * rate:,.1f} ratings/min"]
    else:
        turns, tokens = (rate.per_second(view.now, RATE_S) for rate in (tally.turn_rate, tally.token_rate))
        pieces += [] if turns is None else [f"{turns:,.2f} turns/s"]
        pieces += [] if tokens is None else [f"{tokens:,.0f} tokens/s"]
    if process:
        lag = process.lag_s
        pieces.append(f"loop lag {lag:,.1f} s" if lag >= 1 else f"loop lag {1000 * lag:.0f} ms")
    return pieces


def _spent(view: View) -> list[str]:
    tally, roles = view.tally, []
    for role, spent in tally.spent.items():
        share = tally.share(role)
        whole = f" of about {dollars(spent.dollars / share)}" if share and share < 1 and spent.dollars else ""
        roles.append(f"{role} {dollars(spent.dollars)}{whole}")
    if not roles and tally.budget is None:
        return []
    total = dollars(sum(spent.dollars for spent in tally.spent.values()))
    unpriced = sum(spent.unpriced for spent in tally.spent.values())
    pieces = [total if tally.budget is None else f"{total} of the budget of {dollars(tally.budget)}"]
    pieces += [f"{unpriced:,} answers of unknown price"] if unpriced else []
    return pieces + roles


def _requests(view: View) -> list[str]:
    tally, requests = view.tally, view.requests
    answered = sum(spent.requests for spent in tally.spent.values())
    if not (requests.sent or requests.limit or answered or tally.rate_limited or tally.failed_requests):
        return []
    pieces = []
    if view.written:
        oldest = "" if requests.oldest_s is None else f", the oldest for {span(requests.oldest_s)}"
        pieces += [f"{requests.sent:,} under way{oldest}", *requests.waits]
    pieces += [f"{tally.rate_limited:,} answered with 429"] if tally.rate_limited else []
    pieces += [f"limit {requests.limit:,}"] if requests.limit else []
    pieces += [f"{tally.failed_requests:,} failed"] if tally.failed_requests else []
    return [*pieces, f"{answered:,} paid"] if answered else pieces


def _oldest(view: View) -> list[str]:
    """Return which session has waited longest for its next turn."""
    name, since = next(iter(view.tally.waiting.items()), ("", 0.0))
    if not view.written or not name:
        return []
    turn = view.tally.sessions[name].turns + 1
    return [f"{span(view.now - since)} for turn {turn} of {name}"]


def _notes(view: View) -> list[str]:
    tally, notes = view.tally, []
    if tally.ended and tally.ended.how == "failed" and not view.written:
        notes.append(tally.ended.why)
    if tally.arms and not tally.plan_known and tally.phase != "judging":
        notes.append("this journal does not say how many sessions are planned")
    if tally.unread:
        notes.append(f"unreadable records in this journal: {tally.unread:,}")
    return notes
