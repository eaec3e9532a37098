"""A checkpoint's counters are whole, or the checkpoint is passed over."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.errors import UserError
from cbtrain.files import seal, unseal
from cbtrain.training.checkpoints.checkpoint import STATE, Checkpoint, DamagedCheckpoint, PlainFiles, newest, read_state
from cbtrain.training.checkpoints.checkpoint import write as write_checkpoint
from cbtrain.training.checkpoints.resuming import check_same
from cbtrain.training.checkpoints.writer import CheckpointWriter
from cbtrain.training.config import CheckpointConfig, StageConfig
from cbtrain.training.progress import CHECKS, Progress

pytestmark = pytest.mark.fault("F7")

POINT = {"step": 0, "tokens": 0, "train_loss": None, "validation_loss": 2.5, "phases": {}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def checkpoint(step):
    progress = Progress(
        step=step,
        tokens=step * 100,
        scheduled=step * 100,
        packs_per_step=2,
        position={"epoch": 0, "step": step, "done": 0, "plan": 77},
        validated=0,
        best_loss=2.5,
        best_step=0,
        recent=[2.0],
        curve=[POINT],
    )
    state = {"progress": progress.as_dict(), "validation_loss": 2.5, "config": {"seed": 0}, "written_by": {}}
    return Checkpoint(state, {"w": torch.ones(2)}, {"w.m": torch.ones(2)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (3, 4):
        write_checkpoint(folder, checkpoint(step), PlainFiles())
    return folder


def newest_with(folder, text):
    """What is found where the newest checkpoint's state is ``text``, and what is said."""
    file, said = folder / "step-4" / STATE, []
    before = file.read_text()
    try:
        file.write_text(text)
        return newest(folder, PlainFiles(), said.append), said
    finally:
        file.write_text(before)


def test_whole_it_is_taken(folder):
    found, said = newest_with(folder, (folder / "step-4" / STATE).read_text())
    assert (found.step, said) == (4, [])


@pytest.mark.parametrize(
    ("before", "after"),
    [('"tokens": 400', '"tokens": 900'), ('"seed": 0', '"seed": 1'), ('"best_loss": 2.5', '"best_loss": 0.5')],
)
def test_a_changed_number_is_passed_over(before, after, folder):
    text = (folder / "step-4" / STATE).read_text()
    assert before in text
    found, said = newest_with(folder, text.replace(before, after))
    assert found.step == 3
    assert len(said) == 1
    assert said[0].endswith("state.json is missing or damaged (its content has changed since it was written)")


@given(st.data())
def test_a_state_without_a_checksum_is_one_that_training_can_continue_from(folder, data):
    """As older versions wrote it: whatever stands in the place of a counter, there is no traceback."""
    state = unseal(json.loads((folder / "step-4" / STATE).read_text()))
    name = data.draw(st.sampled_from([*CHECKS, "position.step", "curve.step", "progress", "files", "validation_loss"]))
    value, progress = data.draw(JSON), state["progress"]
    if name in CHECKS:
        progress[name] = value
    elif name == "position.step":
        progress["position"]["step"] = value
    elif name == "curve.step":
        progress["curve"][0]["step"] = value
    else:
        state[name] = value
    found, said = newest_with(folder, json.dumps(state))
    assert found.step == 3 or not said
    again = Progress.read(found.state["progress"])
    assert isinstance(again.step + again.tokens + again.seconds + len(again.recent), int | float)
    assert again.position.keys() in ({"epoch", "step", "done", "plan"}, set())


def test_a_position_that_is_null_is_passed_over(folder):
    state = unseal(json.loads((folder / "step-4" / STATE).read_text()))
    state["progress"]["position"] = None
    found, said = newest_with(folder, json.dumps(state))
    assert found.step == 3
    assert said[0].endswith("state.json is damaged: position is unusable")


def test_old_checkpoints_are_removed_beside_a_damaged_one(tmp_path):
    """The losses of the others are compared, not that of the damaged one."""
    config = CheckpointConfig(keep_last=1, keep_best=1)
    for step in (1, 2):
        write_checkpoint(tmp_path, checkpoint(step), PlainFiles())
    state = unseal(json.loads((tmp_path / "step-1" / STATE).read_text()))
    (tmp_path / "step-1" / STATE).write_text(json.dumps(seal(state | {"validation_loss": "low"})))
    with pytest.raises(DamagedCheckpoint):
        read_state(tmp_path / "step-1")
    writer = CheckpointWriter(tmp_path, PlainFiles(), config)
    with writer:
        writer.put(checkpoint(3))
    assert writer.warnings() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-2", "step-3"]


def test_a_checkpoint_written_before_a_setting_existed_is_continued(tmp_path):
    before = StageConfig(seed=3).model_dump(mode="json")
    del before["clip_norm"], before["lora"]["dropout"]
    old = Checkpoint({"config": before}, {}, {})
    check_same(old, StageConfig(seed=3), "therapist", tmp_path)
    with pytest.raises(UserError, match="therapist.clip_norm is 0.5, the interrupted run had 1.0"):
        check_same(old, StageConfig(seed=3, clip_norm=0.5), "therapist", tmp_path)
