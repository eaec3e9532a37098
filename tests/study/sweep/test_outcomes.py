"""What a sweep tells of its runs: who failed, who is compared with whom, and who is best."""

import csv
import json
import re

import pytest
from sweeps import adapter, common_settings, results, write_corpus, write_sweep

from cbtrain.cli.main import main
from cbtrain.model.adapters.methods import load_adapter
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.cache import TokenStore
from cbtrain.training.validation import measure_loss

SHORT = {"token_budget": 2500, "validate_every": 20_000}


def run(folder, common, runs, *words, status=0):
    file = write_sweep(folder / "sweep.yaml", common, runs)
    assert main(["sweep", str(file), "--out", str(folder / "out"), *words]) == status
    return folder / "out"


@pytest.fixture(scope="module")
def placebo(tmp_path_factory):
    """A corpus of other patients with other words."""
    folder = write_corpus(tmp_path_factory.mktemp("placebo") / "corpus", words=lambda text: text[::-1])
    for file in folder.iterdir():
        file.write_text(re.sub(r'"(course|id|patient)": "', r'"\1": "other-', file.read_text()))
    return folder


def test_a_run_that_diverges_does_not_end_the_others(place, tmp_path, capsys):
    common = common_settings(place, **{"training.max_skipped_steps": 2})
    runs = {
        "good": {},
        "wild": {"therapist": {"learning_rate": 1e30, "warmup": 0.0, "clip_norm": 1e30, "optimizer": "sgd"}},
    }
    out = run(tmp_path, common, runs, status=2)
    told = capsys.readouterr()
    assert "1 of 2 runs failed: wild" in told.err
    assert "wild failed, the others go on: " in told.out
    found = results(out)
    assert "are not finite 2 steps in a row" in found["wild"]["failed"]
    assert found["good"]["held_out_loss"] > 0
    assert (out / "good" / "study.json").exists()
    assert not (out / "wild" / "study.json").exists()
    assert (out / "wild" / "training" / "therapist" / "skipped.json").exists()
    before = adapter(out / "good")
    assert main(["sweep", "--out", str(out)]) == 2  # the same again: the good one is kept, the other fails again
    told = capsys.readouterr()
    assert "finished before, kept: good" in told.out
    assert "wild failed" in told.out
    assert adapter(out / "good") == before


def test_runs_that_validate_on_other_sessions_are_compared_on_the_same(place, placebo, tmp_path, capsys):
    common = common_settings(place)
    common["therapist"] |= SHORT
    runs = {
        "zero": {},
        "one": {"therapist.seed": 1},
        "placebo": {"corpus.path": str(placebo)},
        "leak": {"split.seed": 3},
        "layout": {"tokens.format": "plain"},
        "patient": {"speaker": "patient"},
    }
    out = run(tmp_path, common, runs)
    told = capsys.readouterr().out
    found = results(out)
    assert found["zero"]["held_out_on"] == found["one"]["held_out_on"] == "validation of zero"
    assert found["placebo"]["held_out_loss"] > 0
    assert found["zero"]["held_out_loss"] == pytest.approx(found["zero"]["validation_best"], rel=1e-6)
    assert found["one"]["held_out_loss"] != pytest.approx(found["one"]["validation_best"], rel=1e-6)
    for name, why in (("leak", "trained on 1 patient on whom run zero is validated"), ("layout", "tokens.* differs")):
        assert found[name]["held_out_loss"] is None
        assert why in found[name]["note"]
        assert f"{name} is not compared: " in told
    assert found["patient"]["held_out_on"] == "its own validation"
    assert "therapist: runs validate on different sessions; held-out losses are on" in told
    # What is noted is the loss of the delivered adapter on the documents of the first run.
    decoder = load_decoder(str(place / "base"))
    load_adapter(decoder, out / "one" / "therapist")
    documents = _validation(place, common)
    assert measure_loss(decoder, documents, 1024).mean == pytest.approx(found["one"]["held_out_loss"], rel=1e-6)
    sweep = json.loads((out / "sweep.json").read_text())
    compared = [row for row in sweep["runs"] if row["speaker"] == "therapist" and row["held_out_loss"] is not None]
    assert sweep["best"] == {"therapist": min(compared, key=lambda row: row["held_out_loss"])["name"]}
    assert [row["name"] for row in compared] == [
        row["name"] for row in sorted(compared, key=lambda row: row["held_out_loss"])
    ]
    with (out / "sweep.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows["one"]["therapist.seed"] == "1"
    assert rows["leak"]["held_out_loss"] == ""
    assert float(rows["zero"]["held_out_loss"]) == found["zero"]["held_out_loss"]
    (seeds,) = sweep["over_seeds"]
    two = [found[name]["held_out_loss"] for name in ("zero", "one")]
    assert set(seeds["runs"]) == {"zero", "one"}
    assert (seeds["mean"], seeds["sd"]) == pytest.approx((sum(two) / 2, abs(two[0] - two[1]) / 2**0.5))
    assert "over seeds" in told
    assert all(name in (out / "validation.svg").read_text() for name in runs)  # in its description
    assert (out / "validation.png").read_bytes()[:4] == b"\x89PNG"


def test_a_joint_sweep_says_that_it_is_one(place, tmp_path, capsys):
    common = common_settings(place)
    common["therapist"] |= SHORT
    full = {"therapist.seed": 2, "therapist.activation_checkpointing": "full"}
    runs = {"a": {}, "b": {"therapist.seed": 1}, "drop": {"therapist.lora.dropout": 0.1}, "full": full}
    out = run(tmp_path, common, runs, "--joint")
    told = capsys.readouterr().out
    assert "drop: computed alone, in spite of --joint: LoRA dropout" in told
    assert "full: computed alone, in spite of --joint: no other run has the same" in told
    assert re.search(r"note: [ab], [ab]: computed with others in one pass \(--joint\)", told)
    assert re.search(r" joint +ended", told)
    assert re.search(r" of \d+ +\w+ +seed 1\b", told)  # with 80 letters too
    found = results(out)
    assert found["drop"]["joint_steps"] == 0 < found["a"]["joint_steps"] <= found["a"]["steps"]
    summary = json.loads((out / "a" / "training" / "therapist" / "summary.json").read_text())
    assert summary["joint_steps"] == found["a"]["joint_steps"]
    # Of the same file without --joint nothing is trained anew.
    assert main(["sweep", str(tmp_path / "sweep.yaml"), "--out", str(out)]) == 0
    assert "finished before, kept: a, b, drop, full" in capsys.readouterr().out


def _validation(place, common) -> TokenStore:
    from rich.console import Console

    from cbtrain.config.loading import load_config
    from cbtrain.study.corpus import load_corpus
    from cbtrain.study.stages import StageSpec, StudyModel

    words = [f"model.path={place / 'base'}", f"corpus.path={place / 'corpus'}", "split.test=0"]
    words += [f"therapist.{key}={'null' if value is None else value}" for key, value in common["therapist"].items()]
    config, console = load_config(None, words), Console(quiet=True)
    corpus = load_corpus(config, console)
    model = StudyModel.of(config, "real", console, corpus.split)
    return StageSpec.of(config, "therapist", model).dataset(corpus, console).validation.documents


def test_runs_may_be_added_to_a_finished_sweep(place, tmp_path, capsys):
    common = common_settings(place)
    first = run(tmp_path, common, {"a": {}})
    told = capsys.readouterr().out
    assert "best therapist" not in told  # of one
    before = adapter(first / "a")
    runs = {"a": {}, "b": {"therapist.lora.rank": 2}, "c": {"therapist.lora.rank": 3}}
    out = run(tmp_path, common, runs, "--at-once", "1")
    told = capsys.readouterr().out
    assert "finished before, kept: a" in told
    assert told.index("b: validation loss") < told.index("c: step 0")  # one after the other
    assert adapter(out / "a") == before
    assert set(results(out)) == {"a", "b", "c"}


def test_a_sweep_without_validation_has_no_best(place, tmp_path, capsys):
    out = run(tmp_path, common_settings(place, **{"split.validation": 0}), {"a": {}, "b": {"therapist.lora.rank": 2}})
    assert "no run validates, so none is the best" in capsys.readouterr().out
    assert {row["held_out_loss"] for row in results(out).values()} == {None}
    assert not (out / "validation.svg").exists()
