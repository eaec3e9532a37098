"""``launch/slurm.sbatch`` without SLURM: ``srun`` and ``scontrol`` pretend."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import LAUNCH

SCRIPT = LAUNCH / "slurm.sbatch"

SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > srun.arguments
# Real srun hands USR1 on and makes KILL of TERM, after which nothing is saved.
trap 'echo USR1 >> told; sleep "$SLOWNESS"; exit "$AFTER_SIGNAL"' USR1
trap 'echo TERM >> told; exit 143' TERM
echo $$ > srun.pid
[ -z "$AT_ONCE" ] || exit "$AT_ONCE"
while :; do sleep 0.05; done
"""

SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then printf 'node7\\nnode8\\n'; else echo "$*" >> scontrol.calls; exit "$REQUEUE"; fi
"""

# As srun would on one node: its own options away, the rest is the task, which gets USR1 too.
SRUN_OF_ONE_NODE = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
echo $$ > srun.pid
exec "$@"
"""

WORKER = """import os, signal, sys, time
def stop(*_):
    open("saved", "w").write(" ".join(sys.argv[1:]))
    sys.exit(75)
signal.signal(signal.SIGUSR1, stop)
open("ready", "w").close()
while True:
    time.sleep(0.05)
"""


class Job:
    """The script as SLURM's batch step, in ``folder``."""

    def __init__(self, folder: Path, srun: str = SRUN, head: str = "node7", **settings: str) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, text in (("srun", srun), ("scontrol", SCONTROL.replace("node7", head))):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[7-8]"}
        pretended = {"AT_ONCE": "", "AFTER_SIGNAL": "1", "SLOWNESS": "0", "REQUEUE": "0"}
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        self.process = subprocess.Popen(
            ["bash", str(SCRIPT), "--config", "quick", "corpus.path=a folder"],
            cwd=folder,
            env={**os.environ, **slurm, **pretended, **settings, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def await_file(self, name: str, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not (self.folder / name).exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"no {name}"
            time.sleep(0.02)
        time.sleep(0.1)  # the script has set its traps, and is waiting

    def end(self) -> int:
        self.out, self.err = self.process.communicate(timeout=60)
        return self.process.returncode

    def lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("slowness", ["0", "0.5"])
def test_a_step_that_the_signal_stopped_is_queued_again(tmp_path, slowness):
    job = Job(tmp_path, SLOWNESS=slowness)
    job.await_file("srun.pid")
    job.process.send_signal(signal.SIGUSR1)
    assert job.end() == 1
    assert job.lines("told") == ["USR1"]
    assert job.lines("scontrol.calls") == ["requeue 4711"]
    assert "continues in runs/slurm-4711" in job.out


def test_a_second_signal_does_not_end_the_wait(tmp_path):
    job = Job(tmp_path, SLOWNESS="0.6")
    job.await_file("srun.pid")
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
        job.process.send_signal(number)
        time.sleep(0.1)
    assert job.process.poll() is None
    assert job.end() == 1
    assert job.lines("scontrol.calls") == ["requeue 4711"]


@pytest.mark.parametrize(("status", "signalled"), [("0", False), ("3", False), ("0", True)])
def test_what_ended_or_failed_by_itself_is_not_queued_again(tmp_path, status, signalled):
    job = Job(tmp_path, **{"AFTER_SIGNAL" if signalled else "AT_ONCE": status})
    if signalled:
        job.await_file("srun.pid")
        job.process.send_signal(signal.SIGUSR1)
    assert job.end() == int(status)
    assert job.lines("scontrol.calls") == []


def test_a_cancelled_job_waits_for_its_step_and_stays_cancelled(tmp_path):
    job = Job(tmp_path)
    job.await_file("srun.pid")
    job.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert job.process.poll() is None
    assert job.lines("told") == []  # a TERM to srun would kill the step before it has saved
    os.kill(int(job.lines("srun.pid")[0]), signal.SIGTERM)  # the step ends, as SLURM has told it to
    assert job.end() == 143
    assert job.lines("scontrol.calls") == []


def test_a_refused_requeue_says_how_to_go_on(tmp_path):
    job = Job(tmp_path, REQUEUE="1", OUT="runs/mine")
    job.await_file("srun.pid")
    job.process.send_signal(signal.SIGUSR1)
    assert job.end() == 1
    assert "submit it with OUT=runs/mine" in job.err


def test_what_is_started(tmp_path):
    job = Job(tmp_path, AT_ONCE="0", SLURM_GPUS_ON_NODE="4", SLURM_RESTART_COUNT="2")
    assert job.end() == 0
    words = job.lines("srun.arguments")
    assert "--kill-on-bad-exit=0" in words
    given = dict(itertools.pairwise(words))
    assert (given["--nnodes"], given["--nproc-per-node"]) == ("2", "4")
    assert given["--rdzv-endpoint"] == "node7:24711"
    assert given["--rdzv-id"] == "4711-2"  # the rendezvous of an earlier allocation is over
    assert "SIGUSR1" in given["--signals-to-handle"].split(",")
    at = words.index("launch/train.py")
    assert words[at + 1 :] == ["--out", "runs/slurm-4711", "--config", "quick", "corpus.path=a folder"]


def test_what_is_stopped_has_less_time_than_slurm_leaves():
    text = SCRIPT.read_text()
    (before_end,) = re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", text, re.MULTILINE)
    (grace,) = re.findall(r"^grace=(\d+)$", text, re.MULTILINE)
    assert int(grace) < int(before_end)
    assert re.search(r"^#SBATCH --requeue$", text, re.MULTILINE)


@pytest.mark.slow
def test_torchrun_hands_the_signal_to_its_processes(tmp_path):
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch/train.py").write_text(WORKER)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    node = {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": str(os.getpid())}
    job = Job(tmp_path, SRUN_OF_ONE_NODE, "localhost", **node)
    job.await_file("ready")
    job.process.send_signal(signal.SIGUSR1)
    assert job.end() == 1  # torchrun's, whatever the processes end with
    assert job.lines("saved") == [f"--out runs/slurm-{os.getpid()} --config quick corpus.path=a folder"]
    assert job.lines("scontrol.calls") == [f"requeue {os.getpid()}"]
