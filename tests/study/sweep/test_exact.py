"""Each run of a sweep comes to the same bits as by `cbtrain train`, however it is interrupted and dealt out."""

import json
import os
import signal
import time

import forked
import pytest
import yaml
from command import ENTRY, cbtrain, start_cbtrain
from sweeps import FOUR, adapter, common_settings, lines, results, words_of, write_sweep

from cbtrain.study.sweep.sweep_file import nested

pytestmark = pytest.mark.slow

SPEAKERS = {name: "patient" if name == "patient" else "therapist" for name in FOUR}


def assert_same(run, alone, speaker):
    assert adapter(run, speaker) == adapter(alone, speaker)
    for kind in ("step", "validation"):
        assert lines(run, kind) == lines(alone, kind)
        assert len(lines(run, kind)) > 1
    last = sorted((alone / "training" / speaker / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))[
        -1
    ]
    for file in ("adapter/adapter_model.safetensors", "optimizer.safetensors"):
        ours = run / "training" / speaker / "checkpoints" / last.name / file
        assert ours.read_bytes() == (last / file).read_bytes()


TRAIN = """
import json, sys
from cbtrain.cli.main import main
for words in json.loads(sys.argv[2]):
    assert main(words) == 0
"""


@pytest.fixture(scope="module")
def alone(place, tmp_path_factory):
    """Each run by itself, one after another."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "common.yaml").write_text(yaml.safe_dump(nested(common_settings(place), "")))
    commands = [
        ["train", "--config", "common.yaml", *words_of({"speaker": "therapist", **settings}), "--out", name]
        for name, settings in FOUR.items()
    ]
    done = forked.run("zygote:execute", TRAIN, json.dumps(commands), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def sweep(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    write_sweep(folder / "four.yaml", common_settings(place))
    done = cbtrain("sweep", "four.yaml", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_each_run_is_what_it_would_be_alone(alone, sweep):
    folder, _ = sweep
    for name, speaker in SPEAKERS.items():
        assert_same(folder / name, alone / name, speaker)
    ended = {name: run["stopped"] for name, run in results(folder).items()}
    assert ended["rate"] == "validation"  # ended early, and the others did not
    assert ended["plain"] == ended["patient"] == "budget"
    assert len({adapter(folder / name, speaker) for name, speaker in SPEAKERS.items()}) == len(FOUR)


def test_each_folder_is_a_whole_run(alone, sweep):
    folder, _ = sweep

    def files(run):
        return {str(path.relative_to(run)) for path in run.rglob("*")}

    for name, speaker in SPEAKERS.items():
        assert files(folder / name) == files(alone / name)
        ours, theirs = (json.loads((at / name / "study.json").read_text()) for at in (folder, alone))
        assert ours["weights"] == theirs["weights"]
        assert ours["corpus"] == theirs["corpus"]
        assert [stage["curve"] for stage in ours["training"]] == [stage["curve"] for stage in theirs["training"]]
        settings = [yaml.safe_load((at / name / "config.yaml").read_text()) for at in (folder, alone)]
        assert settings[0] == settings[1]
        summaries = [
            json.loads((at / name / "training" / speaker / "summary.json").read_text()) for at in (folder, alone)
        ]
        assert summaries[0].keys() == summaries[1].keys()
        assert summaries[0]["forgetting"] == summaries[1]["forgetting"]
        assert results(folder)[name]["general_rise"] == summaries[0]["forgetting"][0]["rise"] != 0
    refused = cbtrain("train", "--out", folder / "plain")
    assert "training is already finished here" in refused.stderr


def start_slowly(tmp_path, place):
    write_sweep(tmp_path / "four.yaml", common_settings(place))
    return start_cbtrain("sweep", "four.yaml", "--out", "out", cwd=tmp_path)


def steps(folder):
    files = folder.glob("*/training/*/metrics.jsonl")
    return sum(line.count('"kind": "step"') for file in files for line in file.read_text().splitlines())


def wait_for(child, folder, count):
    deadline = time.monotonic() + 120
    while steps(folder) < count:
        assert time.monotonic() < deadline
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.002)


def test_killed_again_and_again_it_is_the_same(alone, place, tmp_path):
    folder = tmp_path / "out"
    for count in (3, 7, 12):
        child = start_slowly(tmp_path, place)
        wait_for(child, folder, count)
        child.kill()
        child.wait()
        assert not (folder / "sweep.json").exists()
    done = cbtrain("sweep", "--out", "out", cwd=tmp_path)  # its own file says what it trains
    assert done.returncode == 0, done.stderr
    assert "continuing after step" in done.stdout
    for name, speaker in SPEAKERS.items():
        assert_same(folder / name, alone / name, speaker)
    again = cbtrain("sweep", "four.yaml", "--out", "out", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "finished before, kept: plain, seed, rate, patient" in again.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_all_runs_and_says_how_to_continue(alone, place, tmp_path, number):
    folder = tmp_path / "out"
    child = start_slowly(tmp_path, place)
    wait_for(child, folder, 4)
    os.kill(child.pid, number)
    _, error = child.communicate(60)
    assert child.returncode == 75, error
    assert "Continue with: cbtrain sweep four.yaml --out out" in error
    for name in SPEAKERS:
        if not (folder / name / "study.json").exists():
            saved = {int(path.name[5:]) for path in (folder / name).glob("training/*/checkpoints/step-*")}
            assert max(saved, default=0) == max((line[0] for line in lines(folder / name)), default=0)
    done = cbtrain("sweep", "four.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, speaker in SPEAKERS.items():
        assert_same(folder / name, alone / name, speaker)


def test_runs_are_dealt_out_over_ranks(alone, place, tmp_path):
    write_sweep(tmp_path / "four.yaml", common_settings(place))
    done = forked.run_ranks(2, ENTRY, "sweep", "four.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, speaker in SPEAKERS.items():
        assert_same(tmp_path / "out" / name, alone / name, speaker)
    found = results(tmp_path / "out")
    assert not any(run["failed"] for run in found.values())
    assert "rank 0 of 2 trains" in done.stdout
