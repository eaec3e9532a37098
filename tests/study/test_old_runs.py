"""Runs that commit eba986d made (before the rooms were moved) continue, are evaluated, analysed and compared today.

``data/runs-eba986d.tar.xz`` holds two studies of a model of 8,000 parameters that differ in ``therapist.seed``: the first
with its training, the second what an evaluation leaves. They were made by ``cbtrain run --config quick`` with budgets of
a few steps.
"""

import json
import tarfile
from pathlib import Path

import pytest
import torch

from cbtrain.cli.main import main
from cbtrain.eval.rating.scores import read_scores_csv
from cbtrain.journal import read as read_journal

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(tmp_path):
    """Both folders, fresh."""
    threads = torch.get_num_threads()  # the runs have threads=1
    with tarfile.open(Path(__file__).parent / "data" / "runs-eba986d.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    yield tmp_path / "run-0", tmp_path / "run-1"
    torch.set_num_threads(threads)


def steps_of(run):
    lines = [json.loads(line) for line in (run / "training/therapist/metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines if line["kind"] == "step"]


def test_training_goes_on_from_its_checkpoint_and_ends_as_it_ended(runs):
    run, _ = runs
    before = steps_of(run)
    (run / "study.json").unlink()
    (run / "training/therapist/summary.json").unlink()
    for folder in (run / "therapist", run / "training/therapist/checkpoints/step-6"):
        folder.rename(folder.with_name("aside"))
    assert main(["train", "--out", str(run)]) == 0
    assert (run / "therapist/adapter_model.safetensors").exists()
    assert not list(run.glob("training/therapist/checkpoints/damaged-*"))  # it went on from step 5
    after = steps_of(run)
    assert [step for step, _, _ in after] == [step for step, _, _ in before] == [1, 2, 3, 4, 5, 6]
    assert after[:5] == before[:5]
    assert after[5][1:] == pytest.approx(before[5][1:], rel=1e-4)


def test_an_evaluation_goes_on_and_its_scores_are_the_same(runs):
    run, _ = runs
    events, before = list(read_journal(run / "events.jsonl")), read_scores_csv(run / "scores.csv")
    spoken = [event for event in events if event["kind"] == "turn"]
    for name in ("scores.csv", "report.json", "sessions.jsonl"):
        (run / name).rename(run / f"old-{name}")
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    turns = [number for number, line in enumerate(lines) if '"kind": "turn"' in line]
    (run / "events.jsonl").write_text("".join(lines[: turns[-3]]))
    assert main(["evaluate", "--run", str(run)]) == 0
    again = [event for event in read_journal(run / "events.jsonl") if event["kind"] == "turn"]
    kept = len(turns) - 3
    said = lambda event: (event["session"], event["index"], event["text"])  # noqa: E731
    assert list(map(said, again[:kept])) == list(map(said, spoken[:kept]))
    assert {event["session"] for event in again} == {event["session"] for event in spoken}
    after = {(score.session_id, score.judge): score for score in read_scores_csv(run / "scores.csv")}
    assert after.keys() == {(score.session_id, score.judge) for score in before}
    finished = {event["session"] for event in events if event["kind"] == "session_finished"}
    resumed = {event["session"] for event in spoken[kept:]}
    assert finished - resumed
    for score in before:
        if score.session_id not in resumed:
            assert after[score.session_id, score.judge] == score


def test_they_are_analysed_and_compared(runs, capsys):
    first, second = map(str, runs)
    assert main(["analyze", first, "--json", "--draws", "100"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [contrast["id"] for contrast in found["contrasts"]] == ["tuned − base"]
    old = json.loads((runs[0] / "report.json").read_text())["analysis"]
    assert found["contrasts"][0]["estimate"] == old["contrasts"][0]["estimate"]
    assert main(["compare", first, second, "--json", "--draws", "100"]) == 0
    assert len(json.loads(capsys.readouterr().out)["completion"]["arms"]) == 4
