"""Every form in which an API says when to come back."""

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from cbtrain.providers.formats.failures import failure_of
from cbtrain.providers.formats.waiting import LONGEST_BY_OUR_CLOCK_S, parse_wait, requested_wait

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-4", 0.0),
        ("1m30s", 90.0),
        ("6m0s", 360.0),
        ("250ms", 0.25),
        ("1h2m", 3720.0),
        ("1.5s", 1.5),
        ("Sun, 01 Mar 2026 12:00:20 GMT", 20.0),
        ("Sun, 01 Mar 2026 11:59:00 GMT", 0.0),
        ("2026-03-01T12:01:00Z", 60.0),
        ("2026-03-01T13:00:30+01:00", 30.0),
        (" 7 ", 7.0),
        (str(NOW.timestamp() + 40), 40.0),  # a moment since 1970, which would be a wait of 56 years
        (str(int(NOW.timestamp() * 1000) + 2500), 2.5),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("1m later", None),
        (None, None),
    ],
)
def test_forms(text, seconds):
    assert parse_wait(text, NOW) == seconds


def test_retry_after_is_taken_at_its_word():
    headers = {"Retry-After": "2", "x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"}
    assert requested_wait(headers, "", NOW) == 2
    assert requested_wait({"retry-after-ms": "1500"}, "", NOW) == 1.5
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17.5s"}
    assert requested_wait({}, json.dumps({"error": {"details": [delay]}}), NOW) == 17.5
    assert requested_wait({"retry-after": "20"}, json.dumps(delay), NOW) == 20


def test_otherwise_the_latest_reset_of_what_is_used_up():
    openai = {"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "1m30s"}
    assert requested_wait(openai, "", NOW) == 90
    left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "100"}
    assert requested_wait(openai | left, "", NOW) == 1
    anthropic = {
        "anthropic-ratelimit-requests-reset": "2026-03-01T12:00:10Z",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2026-03-01T12:00:40Z",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": "2026-03-01T12:05:00Z",
        "anthropic-ratelimit-output-tokens-remaining": "9",
    }
    assert requested_wait(anthropic, "", NOW) == 40
    assert requested_wait({"x-ratelimit-reset-tokens": "when it suits"}, "", NOW) is None
    assert requested_wait({}, "no", NOW) is None


WAYS = {
    "Retry-After": lambda moment: {"Retry-After": format_datetime(moment, usegmt=True)},
    "ISO 8601": lambda moment: {"Retry-After": moment.isoformat()},
    "seconds since 1970": lambda moment: {"Retry-After": str(moment.timestamp())},
    "reset": lambda moment: {"anthropic-ratelimit-requests-reset": moment.isoformat()},
}


@pytest.mark.fault("F12")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("hours", [-30, -2, 0, 2, 30])
def test_a_date_counts_from_the_apis_own_clock(way, hours):
    """This machine's clock is so many hours off the API's: the wait is 20 seconds all the same."""
    theirs = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=hours)
    headers = WAYS[way](theirs + timedelta(seconds=20)) | {"Date": format_datetime(theirs, usegmt=True)}
    assert requested_wait(headers, "") == 20
    assert failure_of(429, headers, "slow down").retry_after_s == 20


@pytest.mark.fault("F12")
@pytest.mark.parametrize("way", WAYS)
def test_a_date_without_the_apis_clock_is_believed_for_minutes_only(way):
    ours = datetime.now(timezone.utc)
    failure = failure_of(429, WAYS[way](ours + timedelta(hours=2)), "slow down")
    assert failure.retry_after_s == LONGEST_BY_OUR_CLOCK_S
    assert str(failure).startswith("HTTP 429, rate limit: slow down (it asks to wait until a date that is 7,")
    assert "by this machine's clock, which may be wrong" in str(failure)
    assert 18 <= requested_wait(WAYS[way](ours + timedelta(seconds=20)), "") <= 20
    assert failure_of(429, {"Retry-After": "7200"}, "").retry_after_s == 7200  # no clock is asked
    assert failure_of(429, {"Retry-After": "2h"}, "").retry_after_s == 7200
