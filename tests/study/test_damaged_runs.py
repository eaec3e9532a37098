"""What training left in a run's folder is taken as it was written, or refused in one line."""

import contextlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file, save_file

from cbtrain.errors import UserError
from cbtrain.files import seal
from cbtrain.study.run_folder import finished_stage
from cbtrain.study.trained_run import TrainedRun, weights_digest

pytestmark = pytest.mark.fault("F7")

CORPUS = {"split": {"train": ["a"], "validation": ["b"], "test": ["c"]}, "fingerprint": "f", "sessions": 3}
STAGE = {"name": "therapist", "seconds": 3.0, "validation_best": 2.5}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "therapist").mkdir()
    save_file({"w": torch.arange(4.0)}, tmp_path / "therapist" / "adapter_model.safetensors")
    weights = {"therapist": weights_digest(tmp_path / "therapist")}
    state = {"model": "base", "corpus": CORPUS, "training": [STAGE], "seconds": 3.0, "weights": weights}
    (tmp_path / "study.json").write_text(json.dumps(seal(state), indent=2))
    return tmp_path


def test_a_run_is_read_as_it_was_written(run):
    trained = TrainedRun.read(run)
    assert (trained.corpus, trained.training, trained.seconds) == (CORPUS, [STAGE], 3.0)
    trained.check_weights()


@pytest.mark.parametrize(("before", "after"), [('"c"', '"b"'), ("2.5", "2.4"), ('"model": "base"', '"model": "case"')])
def test_a_changed_run_is_refused(before, after, run):
    file = run / "study.json"
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(UserError, match=r"study\.json: damaged \(its content has changed since it was written\)"):
        TrainedRun.read(run)


def test_changed_weights_are_refused(run):
    file = run / "therapist" / "adapter_model.safetensors"
    weights = load_file(file)
    weights["w"][2] += 1
    save_file(weights, file)
    with pytest.raises(UserError, match="therapist: its weights have changed since training"):
        TrainedRun.read(run).check_weights()


def test_whatever_stands_in_a_run_of_an_older_version(run):
    file = run / "study.json"
    state = json.loads(file.read_text())
    del state["checksum"], state["weights"]

    @given(st.sampled_from(sorted(state)), JSON)
    def check(name, value):
        file.write_text(json.dumps(state | {name: value}))
        with contextlib.suppress(UserError):
            trained = TrainedRun.read(run)
            assert trained.corpus["split"] is not None or trained.corpus["fingerprint"] is not None or name == "corpus"
            assert trained.is_tiny in (True, False)
            assert trained.base.endswith(trained.model)

    check()


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "patient", "seconds": 1}', '{"name": "therapist"}', None])
def test_a_damaged_result_is_ignored_and_the_stage_finished_anew(text, tmp_path, capsys):
    place, product = tmp_path / "training" / "therapist", tmp_path / "therapist"
    place.mkdir(parents=True)
    product.mkdir()
    whole = json.dumps(seal(STAGE))
    (place / "summary.json").write_text(whole)
    assert finished_stage(place, product, Console(quiet=True)) == STAGE
    (place / "summary.json").write_text(whole.replace("2.5", "2.4") if text is None else text)
    assert finished_stage(place, product, Console()) is None
    assert "ignored" in capsys.readouterr().out
