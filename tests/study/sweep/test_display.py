"""The table of runs that train, from what is known of them."""

import io

import pytest
from rich.console import Console

from cbtrain.study.sweep.display import SweepView, line_of, share_done, times_left
from cbtrain.training.telemetry.speed import Speed
from cbtrain.training.telemetry.status import Status


def status(tokens, budget, rate, state=None):
    made = Status("therapist", budget, step=tokens // 100, tokens=tokens, state=state, label="x")
    if rate:
        made.speed = Speed(rate, rate / 2, 0.1, 0.1, 0.0)
        made.smoothed.add(2.5)
        made.best = 2.25
    return made


RUNS = {
    "slow": status(1000, 3000, 100),
    "fast": status(1000, 2000, 200),
    "ended": status(500, 4000, 100, state="in 0:05"),
    "waiting": status(0, 1000, None),
}


def test_time_left_counts_that_runs_share_the_machine():
    left = times_left(RUNS)
    assert left["fast"] == pytest.approx(5 + 5)  # 1,000 tokens each of slow and fast: 5 s of its own, 5 s of the other
    assert left["slow"] == pytest.approx(20 + 5)
    assert left["ended"] == 0
    assert share_done(RUNS.values()) == pytest.approx(2500 / 6500)  # who has ended early has nothing left to do


@pytest.mark.parametrize("width", [50, 120])
def test_each_run_has_a_line_of_the_table(width):
    out = io.StringIO()
    Console(file=out, width=width).print(SweepView(RUNS))
    lines = out.getvalue().splitlines()
    assert len(lines) == 1 + len(RUNS)
    assert max(map(len, lines)) <= width
    assert all(name in line for name, line in zip(RUNS, lines[1:], strict=True))
    slow, _, ended, waiting = lines[1:]
    assert "33%" in slow
    assert ("of 3.0k" in slow) == (width == 120)
    assert "2.250" in slow
    assert ("100" in slow.split()) == (width == 120)  # tokens/s
    assert slow.rstrip().endswith("0:25")
    assert ended.rstrip().endswith("in 0:05")
    assert waiting.rstrip().endswith("starting")


def test_a_line_tells_of_all_where_there_is_no_terminal():
    assert line_of(RUNS) == (
        "38% of all tokens, 0:25 left; losses (smoothed) slow 2.500, fast 2.500, ended 2.500, waiting –"
    )
    many = {f"run-{number}": RUNS["fast"] for number in range(20)}
    assert "and 12 more" in line_of(many)
