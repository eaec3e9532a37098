"""Training on pairs of answers by the command line: what it says, writes, keeps, and refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from command import cbtrain

COMMON = ["--config", "quick", "corpus.path=sample-pairs", "training.speakers=[therapist]", "base.token_budget=3000"]


def train(folder, *settings, out="run"):
    return cbtrain("train", *COMMON, *settings, "--out", out, cwd=folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    done = train(folder, "therapist.objective=dpo", "therapist.max_epochs=6")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_run_on_pairs_says_and_writes_what_it_ranks(trained):
    folder, said = trained
    stage = folder / "run" / "training" / "therapist"
    summary = json.loads((stage / "summary.json").read_text())
    before, best = summary["pairs_before"], summary["pairs"]
    assert summary["objective"] == "dpo"
    assert before["accuracy"] == 0.5  # with a new adapter the model is its base
    assert before["gain_chosen"] == pytest.approx(0, abs=1e-4)
    assert best["accuracy"] > 0.5
    assert best["margin"] == pytest.approx(best["gain_chosen"] - best["gain_rejected"], rel=1e-4)
    assert summary["data"]["whole_recipe_tokens_per_epoch"] > summary["data"]["tokens_per_epoch"]
    assert summary["forgetting"][-1]["text"] == "chosen answers"
    assert summary["forgetting"][-1]["kl"] > 0
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    assert all(0 <= step["pairs"]["accuracy"] <= 1 for step in steps)
    assert steps[-1]["pairs"]["chosen_tokens"] > 10
    assert "of 2 pairs ranked rightly (best)" in said
    assert "validation pairs ranked rightly: 50.0% before" in said
    card = (folder / "run" / "therapist" / "README.md").read_text()
    assert "| objective | dpo |" in card
    assert "| validation pairs ranked rightly | 50.0% before, 100.0% now |" in card


def test_what_the_base_says_is_read_from_the_folder_the_cache_or_computed_again(trained):
    folder, said = trained
    assert "the base reads 4 pairs of answers" in said
    base = f"model.path={folder / 'run' / 'base'}"
    settings = [base, "therapist.pack_tokens=1024", "therapist.objective=dpo", "therapist.preference.beta=0.5"]
    one = train(folder, *settings, out="one")
    assert "is known already" in one.stdout  # of other settings over the same pairs and base
    cached = list((Path(os.environ["CBTRAIN_CACHE"]) / "reference").glob("*.npz"))
    assert cached
    for file in cached:  # damaged, they are computed again, to the same numbers
        file.write_bytes(file.read_bytes()[:-200])
    two = train(folder, *settings, out="two")
    assert "the base reads 4 pairs" in two.stdout
    found = [np.load(folder / name / "training" / "therapist" / "reference.npz") for name in ("one", "two")]
    for part in ("part0", "part1"):
        np.testing.assert_allclose(found[0][part], found[1][part], rtol=1e-6)
    summaries = [
        json.loads((folder / name / "training" / "therapist" / "summary.json").read_text()) for name in ("one", "two")
    ]
    assert summaries[0]["pairs"] == pytest.approx(summaries[1]["pairs"], rel=1e-4)


def test_objectives_are_compared_apart_in_a_sweep(trained):
    folder, _ = trained
    (folder / "sweep.yaml").write_text(
        "common: {config: quick, speaker: therapist, corpus.path: sample-pairs, therapist.max_epochs: 2, "
        f"model.path: {folder / 'run' / 'base'}}}\n"
        "grid: {therapist.objective: [sft, orpo, dpo], therapist.learning_rate: [1.0e-3, 5.0e-3]}\n"
    )
    done = cbtrain("sweep", "sweep.yaml", "--joint", "--out", "sweep", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "sweep" / "sweep.json").read_text())
    assert set(found["best"]) == {"therapist", "therapist orpo", "therapist dpo"}
    rows = {row["name"]: row for row in found["runs"]}
    assert all((row["accuracy"] is None) == ("sft" in name) for name, row in rows.items())
    assert all((row["perplexity"] is None) != ("sft" in name) for name, row in rows.items())
    assert "best therapist dpo: " in done.stdout
    assert "of pairs the chosen answers are learnt, and the rejected ones are not used" in done.stdout


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["corpus.path=sample", "therapist.objective=orpo"], "no pairs of answers"),
        (["therapist.preference.beta=0.2"], "preference.beta has no effect with objective sft"),
        (["therapist.objective=orpo", "therapist.preference.loss=ipo"], "no effect with objective orpo"),
        (["therapist.objective=dpo", "therapist.supervise=both"], "leave supervise out"),
        (["patient.objective=dpo"], "compares answers of the therapist"),
        (["therapist.objective=dpo", "tokens.document=course"], "a document of its own"),
        (["therapist.objective=dpo", "training.engine=deepspeed", "training.zero_stage=3"], "ZeRO-3"),
        (
            ["therapist.objective=orpo", "tokens.document_tokens=60", "therapist.pack_tokens=60"],
            "tokens.document_tokens allows 60",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(settings, says, tmp_path):
    common = [one for one in COMMON if one.partition("=")[0] not in {s.partition("=")[0] for s in settings}]
    done = cbtrain("train", *common, *settings, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert says in line
    assert not (tmp_path / "run").exists()
