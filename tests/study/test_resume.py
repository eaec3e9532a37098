"""A whole study under torchrun and ZeRO-2, killed and stopped, comes to the same adapter as one that nothing touched."""

import json
import os
import signal
import subprocess
import time

import forked
import pytest
from command import ENTRY, cbtrain
from killing import children, kill
from places import BIN, LAUNCH
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SMALL = [
    *(
        "--config",
        "quick",
        "training.speakers=[therapist]",
        "base.token_budget=8000",
        "therapist.token_budget=70000",
        "therapist.max_epochs=9",
    ),
    *("therapist.packs_per_step=2", "therapist.validate_every=40000", "therapist.validation_tokens=3000"),
    *("therapist.lora.dropout=0.1", "training.checkpoints.every_steps=1", "evaluation.perplexity_tokens=200"),
]
ZERO2 = ["training.engine=deepspeed", "training.zero_stage=2"]


def finish(cwd, folder, *settings, ranks=2):
    arguments = ("train", *SMALL, *settings, "--out", folder)
    done = forked.run_ranks(ranks, ENTRY, *arguments, cwd=cwd, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def start(cwd, folder, *settings):
    """Under torchrun itself, whose ranks outlive it where it is killed."""
    torchrun = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*torchrun, LAUNCH / "train.py", *SMALL, *settings, "--out", folder],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def steps(folder, stage="therapist"):
    file = folder / "training" / stage / "metrics.jsonl"
    text = file.read_text() if file.exists() else ""
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [(line["step"], line["batch"], line["loss"]) for line in lines if line["kind"] == "step"]


def wait_for(child, folder, step, stage="therapist"):
    deadline = time.monotonic() + 300
    while len(steps(folder, stage)) < step:
        assert time.monotonic() < deadline
        assert child.poll() is None, child.stdout.read()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(folder, "run", *ZERO2)
    return folder / "run"


def adapter(run):
    return (run / "therapist" / "adapter_model.safetensors").read_bytes()


def test_killed_and_resumed_it_is_the_same_adapter(whole, tmp_path):
    run = tmp_path / "run"
    child = start(tmp_path, "run", *ZERO2)
    wait_for(child, run, 2)
    for pid in children(child):
        os.kill(pid, signal.SIGSTOP)
    refused = cbtrain("train", "--out", "run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "another process is training in this folder" in refused.stderr
    kill(child)
    assert not (run / "study.json").exists()
    out = finish(tmp_path, "run", *ZERO2)
    assert "base: finished before, kept" in out
    assert "therapist: continuing after step" in out
    assert steps(run) == steps(whole)
    assert adapter(run) == adapter(whole)
    summary = json.loads((run / "training" / "therapist" / "summary.json").read_text())
    assert summary["engine"] == "deepspeed, ZeRO stage 2"
    assert summary["ranks"] == 2
    expected = json.loads((whole / "training" / "therapist" / "summary.json").read_text())
    assert summary["forgetting"] == expected["forgetting"]
    parts = ("weights", "adapters", "gradients", "optimizer", "activations", "workspace")
    assert sum(summary["memory"][part] for part in parts) == summary["memory"]["total"]


def test_stopped_by_slurms_signal_it_goes_on_elsewhere(whole, tmp_path):
    """On one rank and the plain engine the same packs and losses; settings come from the folder."""
    run = tmp_path / "run"
    child = start(tmp_path, "run", *ZERO2)
    wait_for(child, run, 2)
    os.kill(children(child)[0], signal.SIGUSR1)
    out, _ = child.communicate(timeout=120)
    assert "stopped by SIGUSR1 after step" in out
    assert "Continue with: cbtrain " in out
    done = cbtrain("train", "--out", "run", "training.engine=torch", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = json.loads((run / "environment.json").read_text())
    assert (environment["ranks"], [one["ranks"] for one in environment["continued"]]) == (2, [1])
    assert set(environment["kernels"]) == {"rms_norm", "rope", "swiglu", "cross_entropy", "nf4"}
    assert [line[:2] for line in steps(run)] == [line[:2] for line in steps(whole)]
    ours, theirs = ([loss for *_, loss in steps(folder)] for folder in (run, whole))
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_what_does_not_go_on(whole, tmp_path):
    def refused(*arguments):
        done = cbtrain("train", *arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "training is already finished here. `cbtrain evaluate --run" in refused("--out", whole)
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", whole, copy], check=True)
    (copy / "study.json").unlink()
    other = refused("--out", "run", "therapist.learning_rate=0.5")
    assert "therapist.learning_rate is 0.5, the interrupted run has 0.005" in other or "learning_rate" in other
    assert "an interrupted run is in this folder" in refused("--out", "run", "training.resume=never")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    assert "already exists and is not an empty folder" in refused("--out", "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.fault("H9")
def test_zero_3_loads_shares_and_trains_the_same(whole, tmp_path):
    out = finish(tmp_path, "run", "training.engine=deepspeed", "training.zero_stage=3")
    ours, theirs = steps(tmp_path / "run"), steps(whole)
    assert [line[:2] for line in ours] == [line[:2] for line in theirs]
    assert [loss for *_, loss in ours] == pytest.approx([loss for *_, loss in theirs], rel=1e-5)
    tuned, expected = (load_file(run / "therapist" / "adapter_model.safetensors") for run in (tmp_path / "run", whole))
    assert tuned.keys() == expected.keys()
    assert max((tuned[name] - value).abs().max() for name, value in expected.items()) < 1e-4
    summary = json.loads((tmp_path / "run" / "training" / "therapist" / "summary.json").read_text())
    assert {text["not_measured"] for text in summary["forgetting"]} == {"no rank holds whole weights in ZeRO stage 3"}
    # Each rank holds half of the base.
    assert summary["base_weights"]["bytes"] == pytest.approx(
        json.loads((whole / "training" / "therapist" / "summary.json").read_text())["base_weights"]["bytes"] / 2,
        rel=0.02,
    )
    assert "bytes a parameter on each of 2 ranks, which hold a part each;" in out
    assert "validation loss" in out
