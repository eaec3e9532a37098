"""Runs that are killed or stopped, and go on: to the last bit as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from forked import STDOUT, Forked, Ranks, run_ranks
from killing import children
from places import BIN, SHARED

from cbtrain.training.checkpoints.checkpoint import read

STOPPED = 75


def run(folder, world=1, **settings):
    done = run_ranks(world, "resume_worker:main", json.dumps({"folder": str(folder), **settings}))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def start(folder, world=1, pause=0.08, **settings):
    """``pause`` is how long each training pack takes longer, in seconds."""
    settings = json.dumps({"folder": str(folder), "pause": pause, **settings})
    if world == 1:
        return Forked("resume_worker:main", settings, stderr=STDOUT)
    return Ranks(world, "resume_worker:main", settings, stderr=STDOUT)


def start_torchrun(folder, **settings):
    """Two ranks under the real one."""
    settings = json.dumps({"folder": str(folder), "pause": 0.08, **settings})
    return subprocess.Popen(
        [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", SHARED / "resume_worker.py", settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_step(child, folder, step):
    """Until the metrics tell of so many steps."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if len(steps(folder)) >= step:
            return
        assert child.poll() is None, child.stdout.read()
        time.sleep(0.005)
    raise AssertionError("it never got there")


def lines(folder, kind):
    file = folder / "metrics.jsonl"
    text = file.read_text() if file.exists() else ""
    found = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [line for line in found if line["kind"] == kind]


def steps(folder):
    return lines(folder, "step")


NUMBERS = ("step", "epoch", "tokens", "loss", "grad_norm", "learning_rate", "batch", "supervised", "skipped")


def numbers(folder):
    return [{key: line[key] for key in NUMBERS} for line in steps(folder)]


def validations(folder):
    return [(line["step"], line["loss"], line["best"], line["phases"]) for line in lines(folder, "validation")]


def assert_same(folder, whole):
    assert numbers(folder) == numbers(whole)
    assert validations(folder) == validations(whole)
    ours, theirs = (torch.load(f / "best.pt", weights_only=True) for f in (folder, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    last = sorted((whole / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))[-1].name
    files = [path.relative_to(whole) for path in (whole / "checkpoints" / last).rglob("*.safetensors")]
    assert len(files) >= 2  # weights and optimizer
    for file in files:
        assert (folder / file).read_bytes() == (whole / file).read_bytes(), file


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def edge(whole):
    """The number of steps in the first epoch."""
    return sum(line["epoch"] == 0 for line in steps(whole))


def kill_at(folder, step, **settings):
    child = start(folder, **settings)
    wait_for_step(child, folder, step)
    child.kill()
    child.wait()


def test_a_killed_run_goes_on_bit_by_bit(whole, tmp_path):
    per_epoch = edge(whole)
    assert per_epoch >= 3
    assert len(steps(whole)) > 2 * per_epoch + 1
    kill_at(tmp_path, per_epoch - 1)
    assert not (tmp_path / "result.json").exists()
    # An interpreter of its own: a forked one would share the seed of Python's hashes with the run before.
    command = [sys.executable, SHARED / "resume_worker.py", json.dumps({"folder": str(tmp_path)})]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "continuing after step" in out
    assert_same(tmp_path, whole)


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("second epoch", marks=pytest.mark.slow),
        pytest.param("edge", marks=pytest.mark.deep),
        pytest.param("random", marks=pytest.mark.deep),
    ],
)
def test_wherever_it_is_killed(whole, tmp_path, where):
    per_epoch = edge(whole)
    step = {"edge": per_epoch, "second epoch": per_epoch + 2}.get(where, random.randint(1, len(steps(whole)) - 2))
    kill_at(tmp_path, step)
    run(tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_it_survives_several_kills_and_rare_checkpoints(whole, tmp_path):
    rare = {"checkpoints": {"every_steps": 4, "keep_last": 1}}
    for step in (3, 6, 9):
        kill_at(tmp_path, step, **rare)
    run(tmp_path, **rare)
    assert numbers(tmp_path) == numbers(whole)
    assert validations(tmp_path) == validations(whole)


METHODS = {
    "full": {"method": "full"},
    "half": {"method": "half", "options": {"round": 1}},
    "hyplora": {"method": "hyplora", "options": {"rank": 3, "dropout": 0.1}},
    "orpo": {"objective": "orpo"},
    "dpo": {"objective": "dpo", "preference": {"reference": "live"}},
    "sparse": {"method": "sparse", "options": {"rank": 3}},  # with a selection: tests/training/test_sparse.py
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_and_its_optimizer_come_back(method, tmp_path):
    settings = {"config": {**METHODS[method], "token_budget": 1000}}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    run(tmp_path / "whole", **settings)
    kill_at(tmp_path / "killed", 4, **settings)
    assert "continuing after step" in run(tmp_path / "killed", **settings)
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["paged_adamw8bit", "sgd"])  # the others share their code
def test_every_optimizer_comes_back(tmp_path, optimizer):
    settings = {"config": {"method": "full", "optimizer": optimizer, "token_budget": 800, "learning_rate": 3e-3}}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    run(tmp_path / "whole", **settings)
    kill_at(tmp_path / "killed", 4, **settings)
    run(tmp_path / "killed", **settings)
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_on_another_number_of_ranks_it_is_the_same_run(whole, tmp_path, before, after):
    child = start(tmp_path, before)
    wait_for_step(child, tmp_path, 4)
    child.kill()
    child.wait()
    run(tmp_path, after)
    ours, theirs = numbers(tmp_path), numbers(whole)
    assert [line["batch"] for line in ours] == [line["batch"] for line in theirs]
    for key in ("loss", "learning_rate"):
        assert [line[key] for line in ours] == pytest.approx([line[key] for line in theirs], rel=1e-6)


@pytest.mark.slow
def test_ranks_without_work_are_told_of(tmp_path):
    settings = {"config": {"packs_per_step": None}}
    kill_at(tmp_path, 3, **settings)
    before = numbers(tmp_path)
    run(tmp_path, 2, **settings)
    (warning,) = lines(tmp_path, "warning")
    assert "steps of 1 packs leave 1 ranks without work" in warning["text"]
    assert [line["batch"] for line in numbers(tmp_path)][: len(before)] == [line["batch"] for line in before]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_saves_everything_and_says_so(whole, tmp_path, name):
    # No checkpoint is due: what is there is what the signal had written.
    settings = {"checkpoints": {"every_minutes": 60}, "config": {"validate_every": 10**9}}
    if name == "SIGTERM":
        settings = {"checkpoints": {"every_minutes": 60}}
    child = start(tmp_path, **settings)
    wait_for_step(child, tmp_path, 5)
    child.send_signal(getattr(signal, name))
    out, _ = child.communicate(timeout=60)
    assert child.returncode == STOPPED, out
    stopped = lines(tmp_path, "stopped")[0]["step"]
    assert f"stopped by {name} after step {stopped}, everything is saved" in out
    assert (tmp_path / "checkpoints" / f"step-{stopped}").is_dir()
    if name == "SIGTERM":
        run(tmp_path, **settings)
        assert numbers(tmp_path) == numbers(whole)
        assert validations(tmp_path) == validations(whole)


@pytest.mark.slow
def test_ranks_stop_together(whole, tmp_path):
    """The signal reaches one rank only."""
    child = start_torchrun(tmp_path, checkpoints={"every_minutes": 60})
    wait_for_step(child, tmp_path, 4)
    os.kill(children(child)[-1], signal.SIGUSR1)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 1, out  # torchrun's own
    assert "stopped by SIGUSR1 after step" in out
    run(tmp_path, 2)
    assert [line["batch"] for line in numbers(tmp_path)] == [line["batch"] for line in numbers(whole)]
    assert [line["loss"] for line in numbers(tmp_path)] == pytest.approx(
        [line["loss"] for line in numbers(whole)], rel=1e-6
    )


@pytest.mark.slow
def test_ctrl_c_under_torchrun_is_one_press(tmp_path):
    """The terminal sends it to every process, and torchrun passes it on once more."""
    child = start_torchrun(tmp_path, checkpoints={"every_minutes": 60})
    wait_for_step(child, tmp_path, 3)
    for pid in (child.pid, *children(child)):
        os.kill(pid, signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert "stopped by SIGINT after step" in out
    stopped = lines(tmp_path, "stopped")[0]["step"]
    assert (tmp_path / "checkpoints" / f"step-{stopped}" / "state.json").exists()


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    child = start(tmp_path, pause=60)  # the first press cannot be obeyed soon
    deadline = time.monotonic() + 60
    while not (tmp_path / "checkpoints" / "step-0").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    time.sleep(2.2)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "checkpoints on disk are whole" in out
    assert read(tmp_path / "checkpoints" / "step-0", _NoParameters()).step == 0


class _NoParameters:
    def load(self, folder):
        return {}


def test_damaged_checkpoints_are_passed_over(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "result.json").unlink()
    found = sorted((folder / "checkpoints").glob("step-*"), key=lambda path: -int(path.name[5:]))
    assert len(found) >= 3
    weights = found[0] / "adapter" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    (found[1] / "state.json").write_text("{")
    out = run(folder)
    assert f"{found[0].name} is skipped: adapter/adapter_model.safetensors is missing or damaged" in out
    assert f"{found[1].name} is skipped: state.json is missing or damaged" in out
    assert f"continuing after step {found[2].name[5:]}" in out
    assert_same(folder, whole)


def test_what_is_written_after_a_damaged_checkpoint_stays(whole, tmp_path):
    """Damaged ones of later steps must not count among the newest, or the next kill would lose everything again."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    found = sorted((folder / "checkpoints").glob("step-*"), key=lambda path: -int(path.name[5:]))
    for path in found:
        (path / "optimizer.safetensors").write_bytes(b"")
    (folder / "metrics.jsonl").unlink()
    child = start(folder)
    wait_for_step(child, folder, 4)
    child.kill()
    child.wait()
    kept = {int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*")}
    assert kept & {2, 3, 4}
    assert (folder / "checkpoints" / f"damaged-{found[0].name}").is_dir()
    out = run(folder)
    assert "continuing after step" in out
    assert numbers(folder) == numbers(whole)


def test_a_stop_where_validation_is_due_keeps_the_best(whole, tmp_path):
    """The checkpoint of the stop is written before the validation, and must hold it after the run went on."""
    rare = {"checkpoints": {"every_minutes": 60, "keep_last": 1}}
    due = next(step for step, _, best, _ in validations(whole) if step and best)
    child = start(tmp_path, pause=0.3, **rare)
    wait_for_step(child, tmp_path, due - 1)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    stopped = lines(tmp_path, "stopped")[0]["step"]
    child = start(tmp_path, **rare)
    wait_for_step(child, tmp_path, min(due + 2, len(steps(whole)) - 1))
    child.kill()
    child.wait()
    out = run(tmp_path, **rare)
    assert "is lost" not in out
    assert stopped in (due - 1, due)
    assert validations(tmp_path) == validations(whole)


def test_a_signal_at_the_end_is_not_swallowed(tmp_path):
    """While the last checkpoint is written nobody asks for signals any more."""
    child = start(tmp_path, pause=0.0, slow_writing=2.0, checkpoints={"every_minutes": 60})
    deadline = time.monotonic() + 90
    while not lines(tmp_path, "checkpoint") or lines(tmp_path, "checkpoint")[-1]["step"] < 5:
        assert time.monotonic() < deadline
        assert child.poll() is None, child.stdout.read()
        time.sleep(0.01)
    child.send_signal(signal.SIGUSR1)
    out, _ = child.communicate(timeout=90)
    assert child.returncode == STOPPED, out
    assert not (tmp_path / "result.json").exists()
    run(tmp_path)
    assert (tmp_path / "result.json").exists()


def test_a_stop_that_cannot_save_does_not_say_that_it_did(tmp_path):
    child = start(tmp_path, fail_writing_after=0, checkpoints={"every_minutes": 60}, config={"validate_every": 10**9})
    wait_for_step(child, tmp_path, 4)
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=60)
    assert child.returncode not in (0, STOPPED)
    assert "stopped by SIGTERM, but the checkpoint of step" in out
    assert "everything is saved" not in out


def test_a_disk_that_stays_full_is_told_of_once(tmp_path):
    run(tmp_path, fail_writing_after=0, checkpoints={"every_steps": 1}, pause=0.0)
    assert len(lines(tmp_path, "warning")) == 1
    assert len(steps(tmp_path)) > 10


def test_other_settings_do_not_go_on(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    settings = {"config": {"learning_rate": 0.5}}
    done = run_ranks(1, "resume_worker:main", json.dumps({"folder": str(folder), **settings}))
    assert done.returncode != 0
    assert "tiny.learning_rate is 0.5, the interrupted run had 0.01" in done.stderr
    out = run(folder, **settings, runtime={"resume": "never"})
    assert "continuing after" not in out


def test_a_checkpoint_is_small_and_holds_no_pickle(whole):
    for checkpoint in (whole / "checkpoints").glob("step-*"):
        names = sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())
        assert all(name.endswith((".json", ".safetensors")) for name in names), names
        adapter = (checkpoint / "adapter" / "adapter_model.safetensors").stat().st_size
        everything = sum((checkpoint / name).stat().st_size for name in names)
        assert everything < 3 * adapter + 40_000  # two moments, headers and counters


def test_kept_checkpoints(whole):
    kept = sorted(int(path.name[5:]) for path in (whole / "checkpoints").glob("step-*"))
    last = len(steps(whole))
    best = next(step for step, _, best, _ in reversed(validations(whole)) if best)
    assert set(kept) == {last - 2, last - 1, last} | {best}
