"""How long an API asks to wait: ``Retry-After`` and similar headers, in every form that is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

PARTS = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)(ms|h|m|s)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

LONGEST_BY_OUR_CLOCK_S = 300.0
"""Seconds that a date is waited for which only this machine's clock, which may be wrong, puts at a distance."""

EPOCH = 1e9
"""No API asks to wait for thirty years."""

RETRY_DELAY = re.compile(r'"retryDelay"\s{0,20}:\s{0,20}"([^"]{1,40})"')
"""Where Google says it: in the body."""

RESET = re.compile(
    r"^(?:x-ratelimit-reset-(?P<openai>[\w-]{1,80})|anthropic-ratelimit-(?P<anthropic>[\w-]{1,80})-reset)$"
)


def requested_wait(headers: Mapping[str, str], body: str, now: datetime | None = None) -> float | None:
    """Return the seconds that a refusal asks to wait, None if it does not say.

    ``Retry-After`` (and ``retry-after-ms``, and the ``retryDelay`` of a body) is taken at its word. Without it, the
    latest reset of those limits that are used up; where it is not said which are, the latest of all. Dates count from
    the moment at which the API says that it answered (``Date``): its clock and this machine's may differ by hours. An
    API that does not say it is believed for :data:`LONGEST_BY_OUR_CLOCK_S` at most.
    """
    return believed_wait(headers, body, now)[0]


def believed_wait(headers: Mapping[str, str], body: str, now: datetime | None = None) -> tuple[float | None, str]:
    """As :func:`requested_wait`, with a note for the user if the wait is not believed (else an empty text)."""
    lower_headers = {name.lower(): value for name, value in headers.items()}
    answered_at = _moment(lower_headers.get("date", ""))
    wait_s = _wait(lower_headers, body, now or answered_at or datetime.now(timezone.utc))
    if wait_s is None or now or answered_at or wait_s <= LONGEST_BY_OUR_CLOCK_S:
        return wait_s, ""
    an_hour_later = _wait(lower_headers, body, datetime.now(timezone.utc) + timedelta(hours=1))
    if an_hour_later is not None and an_hour_later > wait_s - 1800:  # no date: the same at any time
        return wait_s, ""
    note = f"asks to wait until a date that is {wait_s:,.0f} s away by this machine's clock, which may be wrong"
    return LONGEST_BY_OUR_CLOCK_S, note


def _wait(lower_headers: Mapping[str, str], body: str, now: datetime) -> float | None:
    """As :func:`requested_wait`; the names of ``lower_headers`` are in lower case."""
    direct = [parse_wait(lower_headers.get("retry-after"), now)]
    milliseconds = parse_wait(lower_headers.get("retry-after-ms"), now)
    direct.append(None if milliseconds is None else milliseconds / 1000)
    delay = RETRY_DELAY.search(body)
    direct.append(parse_wait(delay[1], now) if delay else None)
    waits = [wait for wait in direct if wait is not None]
    return max(waits) if waits else _reset(lower_headers, now)


def parse_wait(text: str | None, now: datetime) -> float | None:
    """Seconds from ``now``; ``text`` is a number of them, a duration (``1m30s``, ``250ms``), an HTTP date, ISO 8601."""
    if not text or not (text := text.strip()):
        return None
    try:
        number = float(text)
        if number > EPOCH:  # a moment since 1970, in seconds or thousandths
            number = number / (1000 if number > 1000 * EPOCH else 1) - now.timestamp()
        return max(0.0, number) if math.isfinite(number) else None
    except ValueError:
        pass
    if PARTS.sub("", text) == "":
        return sum(float(count) * SECONDS[unit] for count, unit in PARTS.findall(text))
    moment = _moment(text)
    if moment is None:
        return None
    return max(0.0, (moment - now).total_seconds())


def _moment(text: str) -> datetime | None:
    for parse in (parsedate_to_datetime, _iso):
        try:
            moment = parse(text)
        except (ValueError, OverflowError):
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return None


def _iso(text: str) -> datetime:
    return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))


def _reset(headers: Mapping[str, str], now: datetime) -> float | None:
    used_up, any_limit = [], []
    for name, value in headers.items():
        match = RESET.match(name)
        wait = parse_wait(value, now) if match else None
        if match is None or wait is None:
            continue
        any_limit.append(wait)
        if _remaining(match, headers) == 0:
            used_up.append(wait)
    waits = used_up or any_limit
    return max(waits) if waits else None


def _remaining(reset: re.Match[str], headers: Mapping[str, str]) -> float | None:
    """Return the rest of the limit that the header ``reset`` belongs to."""
    if reset["openai"]:
        text = headers.get(f"x-ratelimit-remaining-{reset['openai']}")
    else:
        text = headers.get(f"anthropic-ratelimit-{reset['anthropic']}-remaining")
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
