"""What a run tells: metrics that survive a kill, speeds that mean something, a display that fits its terminal."""

import contextlib
import io
import json
import math
import os
import subprocess
import sys
import textwrap
import time

import forked
import pytest
import torch
from rich.console import Console

from cbtrain.errors import UserError
from cbtrain.training.config import RuntimeConfig
from cbtrain.training.flops import Flops
from cbtrain.training.progress import Measured
from cbtrain.training.telemetry import speed as speed_module
from cbtrain.training.telemetry import telemetry as telemetry_module
from cbtrain.training.telemetry import wording
from cbtrain.training.telemetry.loggers import Logger, check_loggers, open_loggers
from cbtrain.training.telemetry.metrics import read_metrics
from cbtrain.training.telemetry.peak import Peak, data_sheet, find_peak
from cbtrain.training.telemetry.records import StepRecord, ValidationRecord
from cbtrain.training.telemetry.speed import Sample, Speedometer
from cbtrain.training.telemetry.status import POINTS, LossCurve, SmoothedLoss, Status
from cbtrain.training.telemetry.telemetry import Telemetry

PEAK = Peak(1000.0, "1000 FLOP/s (made up)")


@pytest.fixture
def clock(monkeypatch):
    """The time (seconds) that telemetry sees: ``clock[0]``."""
    now = [100.0]
    monkeypatch.setattr(telemetry_module.time, "perf_counter", lambda: now[0])
    return now


def plain():
    return Console(file=io.StringIO(), width=400)


def make(folder, console=None, **more):
    where = {name: more.pop(name) for name in ("step", "tokens", "seconds") if name in more}
    status = Status("therapist", more.pop("budget", 1000), **where)
    speedometer = Speedometer(more.pop("peak", PEAK), more.pop("devices", 1))
    return Telemetry(status, folder, console or plain(), speedometer, **more)


def step(telemetry, number, tokens=100, **more):
    facts = {
        "epoch": 0,
        "tokens": number * tokens,
        "step_tokens": tokens,
        "supervised": tokens // 4,
        "loss": 3.0,
        "learning_rate": 1e-3,
        "grad_norm": 0.5,
        "skipped": False,
        "flops": Flops(200.0, 300.0),
        "wait": 0.1,
    }
    telemetry.step(StepRecord(number, **{**facts, **more}))


def lines(folder, kind=None):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in found if kind in (None, record["kind"])]


def test_a_step_line_holds_all_facts_and_true_speeds(tmp_path, clock):
    with make(tmp_path, devices=2) as telemetry:
        clock[0] += 9  # warm-up
        step(telemetry, 1)
        for number in (2, 3):
            clock[0] += 0.5
            step(telemetry, number)
    record = lines(tmp_path, "step")[-1]
    expected = {
        "step": 3,
        "epoch": 0,
        "tokens": 300,
        "step_tokens": 100,
        "supervised": 25,
        "loss": 3.0,
        "learning_rate": 1e-3,
        "grad_norm": 0.5,
        "skipped": False,
        "seconds": 10.0,
        "step_seconds": 0.5,
        "tokens_per_second": 200.0,
        "supervised_tokens_per_second": 50.0,
        "mfu": 0.2,  # 200 operations in half a second on two devices of 1000 a second
        "hfu": 0.3,
        "input_wait": 0.1,
    }
    assert {key: record[key] for key in expected} == expected
    assert record["memory_gb"] > 0.05
    assert lines(tmp_path, "run")[0]["peak"] == PEAK.name
    summary = telemetry.summary()
    assert summary["tokens_per_second"] == summary["median_tokens_per_second"] == 200.0
    assert (summary["mfu"], summary["hfu"], summary["input_wait_share"]) == (0.2, 0.3, 0.2)
    assert (summary["warm_up_steps"], summary["measured_steps"], summary["seconds"]) == (1, 2, 10.0)
    assert summary["peak"] == PEAK.name


def test_pauses_do_not_count(tmp_path, clock):
    with make(tmp_path) as telemetry:
        clock[0] += 1
        with telemetry.paused():
            clock[0] += 50
            with telemetry.paused():
                clock[0] += 50
            clock[0] += 50
            assert telemetry.seconds == 1
        step(telemetry, 1)
        clock[0] += 1
        step(telemetry, 2)
        assert telemetry.seconds == 2
        # Half of all time has been training so far, or rather 1 in 76: what is left will be no better.
        assert telemetry.status.left == pytest.approx(800 / 100 * 152 / 2)
    assert lines(tmp_path, "step")[-1]["tokens_per_second"] == 100


def test_a_summary_of_one_step_says_so(tmp_path, clock):
    with make(tmp_path) as telemetry:
        assert telemetry.summary()["measured_steps"] == 0
        clock[0] += 2
        step(telemetry, 1)
    summary = telemetry.summary()
    assert (summary["warm_up_steps"], summary["measured_steps"], summary["tokens_per_second"]) == (0, 1, 50.0)


def test_the_window_is_twenty_steps_or_ten_seconds():
    def sample(seconds):
        return Sample(seconds, 100, 50, Flops(1.0, 1.0), 0.0)

    meter = Speedometer(PEAK)
    meter.add(sample(60))
    for _ in range(speed_module.STEPS):
        shown = meter.add(sample(20))
    assert shown.tokens_per_second == pytest.approx(5)
    for _ in range(speed_module.STEPS):  # slow steps are forgotten after twenty others
        shown = meter.add(sample(10))
    assert shown.tokens_per_second == pytest.approx(10)
    for _ in range(2000):  # fast ones are seen for ten seconds
        shown = meter.add(sample(0.01))
    assert shown.tokens_per_second == pytest.approx(10_000)
    assert len(meter._marks) == pytest.approx(10 / 0.01, abs=3)


def test_what_json_cannot_hold_becomes_null(tmp_path):
    with make(tmp_path) as telemetry:
        step(telemetry, 1, loss=math.nan, grad_norm=math.inf, skipped=True)
        telemetry.validation(ValidationRecord(1, 100, Measured(math.nan, {"a": math.nan}), best=False))
        telemetry.event("checkpoint", "written", path=tmp_path, sizes=[1.0, math.inf])
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    first, validation, event = lines(tmp_path)[1:]
    assert (first["loss"], first["grad_norm"], first["skipped"]) == (None, None, True)
    assert (validation["loss"], validation["phases"]) == (None, {"a": None})
    assert (event["kind"], event["path"], event["sizes"]) == ("checkpoint", str(tmp_path), [1.0, None])


def test_a_resumed_run_drops_what_it_will_repeat(tmp_path):
    with make(tmp_path) as telemetry:
        for number in range(1, 6):
            step(telemetry, number)
        telemetry.event("checkpoint", "written")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 6, "lo')  # killed in the middle of a line
    with make(tmp_path, tokens=300, seconds=50.0, step=3, resumed=True) as telemetry:
        assert telemetry.seconds >= 50
        step(telemetry, 4)
    assert [record["step"] for record in lines(tmp_path, "step")] == [1, 2, 3, 4]
    assert lines(tmp_path, "step")[-1]["seconds"] >= 50
    assert not lines(tmp_path, "checkpoint")
    with make(tmp_path) as telemetry:  # a new run starts the file anew
        step(telemetry, 1)
    assert len(lines(tmp_path, "step")) == 1


def test_a_torn_line_in_the_middle_costs_itself_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "step", "step": 1}\n{"kind": "st\xc3\n7\n{"kind": "step", "step": 2}\n')
    assert [record["step"] for record in read_metrics(path)] == [1, 2]


def test_a_kill_leaves_whole_lines(tmp_path):
    """A real process, killed without warning: every line up to its last step is there."""
    code = f"""
    import os, io
    from pathlib import Path
    from rich.console import Console
    from cbtrain.training.flops import Flops
    from cbtrain.training.telemetry.peak import Peak
    from cbtrain.training.telemetry.records import StepRecord
    from cbtrain.training.telemetry.speed import Speedometer
    from cbtrain.training.telemetry.status import Status
    from cbtrain.training.telemetry.telemetry import Telemetry
    console, speedometer = Console(file=io.StringIO()), Speedometer(Peak(1.0, "made up"))
    telemetry = Telemetry(Status("t", 100), Path({str(tmp_path)!r}), console, speedometer)
    telemetry.__enter__()
    for n in range(1, 8):
        telemetry.step(StepRecord(n, 0, n, 1, 1, 1.0, 1.0, 1.0, False, Flops(1.0, 1.0), 0.0))
    os.kill(os.getpid(), 9)
    """
    done = forked.run("zygote:execute", textwrap.dedent(code), cwd=tmp_path)
    assert done.returncode == -9, done.stderr
    assert [record["step"] for record in lines(tmp_path, "step")] == list(range(1, 8))


def test_other_ranks_are_silent_but_measure(tmp_path, clock):
    console = plain()
    with make(tmp_path / "none", console, active=False) as telemetry:
        clock[0] += 1
        step(telemetry, 1)
        telemetry.validation(ValidationRecord(1, 1, Measured(1.0, {}), best=True))
        telemetry.event("checkpoint", "written")
    assert telemetry.summary()["tokens_per_second"] == 100
    assert not console.file.getvalue()
    assert not (tmp_path / "none").exists()


def test_plain_lines_without_a_terminal(tmp_path, clock):
    console = plain()
    with make(tmp_path, console, budget=100_000) as telemetry:
        for number in range(1, 1001):
            clock[0] += 0.1
            step(telemetry, number)
        telemetry.validation(ValidationRecord(1000, 100_000, Measured(2.5, {"opening": 2.0}), best=True))
        telemetry.event("warning", "something [odd]")
    said = console.file.getvalue().splitlines()
    assert len([line for line in said if "tokens/s" in line]) in range(10, 14)  # 10 tenths, 100 s
    assert "100%, step 1,000, epoch 0, loss (smoothed) 3.000" in said[-3]
    assert "MFU 200.0%" in said[-3]
    assert said[-2].strip() == ("therapist: step 1,000, validation loss 2.500 (best), perplexity 12.2; opening 2.000")
    assert said[-1].strip() == "Warning: something [odd]"


@pytest.mark.fault("H1")
def test_slow_runs_say_how_long_they_take_and_something_every_half_minute(tmp_path, clock):
    console = plain()
    with make(tmp_path, console, budget=1_441_000) as telemetry:
        for number in range(1, 121):
            clock[0] += 1
            step(telemetry, number)
    said = console.file.getvalue().splitlines()
    assert said[0].strip() == "therapist: about 4:00:00 left, for 1.4M tokens at 100 tokens/s"  # after ten steps
    assert len(said) == 1 + 4
    assert [record["left"] for record in lines(tmp_path, "time_left")] == [14_400]


@pytest.mark.parametrize("width", [24, 44, 60, 80, 120, 200])
def test_the_display_fits_its_terminal(tmp_path, width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=40, color_system=None)
    with make(tmp_path, console, peak=Peak(1e9, "made up")) as telemetry:
        for number in range(1, 9):
            time.sleep(0.01)
            step(telemetry, number)
        telemetry.validation(ValidationRecord(8, 800, Measured(2.75, {}), best=True))
        telemetry.event("checkpoint", "checkpoint written")
        step(telemetry, 9)
    view = Console(file=io.StringIO(), width=width, color_system=None)
    view.print(telemetry._display.live.renderable)
    shown = view.file.getvalue().splitlines()
    assert max(map(len, shown)) <= width
    assert len(shown) <= 6
    assert "therapist" in shown[0]
    assert "3.000" in "".join(shown)
    if width >= 80:
        for word in ("90%", "2.750", "smoothed", "learning rate", "grad norm", "tokens/s", "supervised/s", "MFU", "GB"):
            assert word in "".join(shown)
    assert "checkpoint" in console.file.getvalue()


def test_an_interrupted_run_says_how_far_it_came(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with contextlib.suppress(KeyboardInterrupt), make(tmp_path, console) as telemetry:
        step(telemetry, 1)
        raise KeyboardInterrupt
    assert telemetry.status.state.startswith("stopped after")
    telemetry.event("warning", "a thread has failed")
    telemetry.event("checkpoint", "", step=7)
    assert [(record["kind"], record["step"]) for record in lines(tmp_path)[-2:]] == [("warning", 1), ("checkpoint", 7)]


def test_curve_and_smoothing():
    curve, smooth = LossCurve(), SmoothedLoss()
    for value in range(1000):
        curve.add(float(value))
    assert POINTS // 2 <= len(curve.points) < POINTS
    assert curve.points == sorted(curve.points)
    smooth.add(2.0)
    smooth.add(math.nan)
    assert smooth.value == pytest.approx(2.0)


def test_wording():
    assert [wording.clock(s) for s in (0, 42, 3723, 2 * 86400 + 3 * 3600 + 240, math.inf)] == [
        "0:00",
        "0:42",
        "1:02:03",
        "2 d 03:04",
        "–",
    ]
    assert [wording.thousands(n) for n in (950, 1000, 9_960, 120_000, 1_250_000)] == [
        "950",
        "1.0k",
        "10k",
        "120k",
        "1.2M",
    ]
    assert [wording.rate(r) for r in (3.1e-3, 0, 2e-5)] == ["3.10e-3", "0", "2.00e-5"]
    assert [wording.percent(s) for s in (0.3123, 0.00012, 0)] == ["31.2", "0.012", "0.0"]


SHEETS = {
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA H200": 989,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA A100 80GB PCIe": 312,
    "A100-SXM4-40GB": 312,
    "NVIDIA A10": 125,
    "NVIDIA L40S": 362,
    "NVIDIA L4": 121,
    "NVIDIA GeForce RTX 4090": 165,
    "NVIDIA GeForce RTX 3090": 71,
    "NVIDIA B200": 2250,
    # Not the same device, or a part of it.
    "NVIDIA GeForce RTX 4090 Laptop GPU": None,
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb": None,
    "NVIDIA A100-SXM4-80GB MIG 1g.10gb": None,
    "NVIDIA T4000": None,
}


@pytest.mark.parametrize("name", SHEETS)
def test_data_sheets(name):
    assert data_sheet(name) == SHEETS[name]


def test_peak_on_this_machine():
    peak = find_peak(torch.device("cpu"), torch.float32)
    assert 1e9 < peak.flops < 1e14
    assert "measured product of float32 matrices on this CPU" in peak.name
    given = find_peak(torch.device("cpu"), torch.float32, 790)
    assert (given.flops, given.name) == (790e12, "790 TFLOP/s (set by training.peak_tflops)")


class Recorder(Logger):
    name = "recorder"

    def __init__(self, *, fails=False):
        self.seen, self.closed, self.fails = [], False, fails

    def log(self, step, values):
        if self.fails:
            raise OSError("no network")
        self.seen.append((step, dict(values)))

    def close(self):
        self.closed = True


def test_loggers_get_finite_numbers_and_cannot_stop_a_run(tmp_path):
    good, bad, console = Recorder(), Recorder(fails=True), plain()
    with make(tmp_path, console, loggers=[bad, good]) as telemetry:
        step(telemetry, 1, loss=math.nan)
        telemetry.validation(ValidationRecord(1, 100, Measured(2.0, {"opening": 1.5}), best=True))
    assert good.closed
    assert good.seen[0][1] == {
        "train/learning_rate": 1e-3,
        "train/grad_norm": 0.5,
        "train/epoch": 0,
        "train/tokens": 100,
    }
    assert "speed/tokens_per_second" in good.seen[1][1]
    validation = {"validation/loss": 2.0, "validation/perplexity": math.exp(2), "validation/loss_opening": 1.5}
    assert good.seen[2] == (1, validation)
    assert console.file.getvalue().count("recorder failed; nothing more is logged to it (OSError: no network)") == 1
    assert lines(tmp_path, "warning")


@pytest.mark.parametrize(
    ("package", "settings"), [("tensorboard", {"tensorboard": True}), ("wandb", {"wandb": "project"})]
)
def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch, package, settings):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for function in (check_loggers, lambda config: open_loggers(config, "run", tmp_path)):
        with pytest.raises(UserError, match=f"pip install {package}"):
            function(RuntimeConfig(**settings))
    assert open_loggers(RuntimeConfig(), "run", tmp_path) == []


def test_tensorboard_reads_it_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = RuntimeConfig(tensorboard=True)
    with make(tmp_path, loggers=open_loggers(config, "run", tmp_path)) as telemetry:
        for number in range(1, 6):
            step(telemetry, number, loss=float(number))
    # Resumed from step 3: steps 4 and 5 are repeated, and seen once.
    loggers = open_loggers(config, "run", tmp_path, step=3)
    with make(tmp_path, loggers=loggers, step=3, tokens=300, resumed=True) as telemetry:
        for number in (4, 5):
            step(telemetry, number, loss=10.0 * number)
        telemetry.validation(ValidationRecord(5, 500, Measured(2.0, {}), best=True))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50)]
    assert [e.value for e in events.Scalars("validation/loss")] == [2.0]


@pytest.mark.slow
def test_wandb_offline_keeps_one_run(tmp_path):
    pytest.importorskip("wandb")
    code = f"""
    from pathlib import Path
    from cbtrain.training.config import RuntimeConfig
    from cbtrain.training.telemetry.loggers import open_loggers
    for step in (None, 3):
        for logger in open_loggers(RuntimeConfig(wandb="project"), "run", Path({str(tmp_path)!r}), step=step):
            logger.log(1, {{"train/loss": 2.0}})
            logger.close()
    """
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, env=environment, check=True)
    identity = (tmp_path / "wandb-id.txt").read_text().strip()
    written = list((tmp_path / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))
    assert len(written) == 2
