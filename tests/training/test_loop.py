import io
import json
import math

import pytest
import torch
from rich.console import Console

from cbtrain.errors import UserError
from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import LoraConfig
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.training.loop import train
from cbtrain.training.stage import Stage
from cbtrain.training.validation import measure_loss


def run(decoder, documents, folder, validation=None, runtime=None, **changes):
    settings = {"learning_rate": 1e-2, "pack_tokens": 64, "token_budget": 4000, "max_epochs": 99}
    settings |= {"validate_every": 500, "patience": 99}
    config = StageConfig(**(settings | changes))
    out = io.StringIO()
    held_out = documents[9:] if validation is None else validation
    stage = Stage(
        name="tiny",
        decoder=decoder,
        documents=documents[:9],
        validation=held_out,
        settings=config,
        folder=folder,
        runtime=runtime or RuntimeConfig(),
    )
    result, _ = train(stage, Console(file=out))
    return result, out.getvalue()


def test_training_learns_what_it_sees_and_records_every_step(tiny, documents, tmp_path):
    decoder = tiny()
    before = measure_loss(decoder, documents[:9], 64).mean
    result, out = run(decoder, documents, tmp_path, validation=documents[:9])
    assert measure_loss(decoder, documents[:9], 64).mean < before
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    assert len(steps) == result.steps
    assert [s["step"] for s in steps] == list(range(1, result.steps + 1))
    assert steps[-1]["tokens"] == result.tokens >= 4000
    assert sum(s["supervised"] for s in steps) == result.supervised_tokens
    assert all(s["learning_rate"] > 0 and s["step_tokens"] > 0 for s in steps)
    assert all(math.isfinite(s["loss"]) and s["grad_norm"] > 0 for s in steps)
    assert "validation loss" in out
    assert result.stopped == "budget"


def test_it_says_that_epochs_ended_it(tiny, documents, tmp_path):
    result, _ = run(tiny(), documents, tmp_path, max_epochs=2, token_budget=50_000)
    assert (result.stopped, result.epochs) == ("epochs", 2.0)
    assert result.planned_tokens == result.tokens < result.token_budget


def test_it_ends_with_the_best_parameters_not_the_last(tiny, documents, tmp_path):
    decoder = tiny()
    result, _ = run(decoder, documents, tmp_path, patience=3, token_budget=50_000)
    assert result.stopped == "validation"
    assert result.tokens < 50_000
    losses = [point["validation_loss"] for point in result.curve]
    assert result.validation_best == min(losses) < losses[-1]
    assert measure_loss(decoder, documents[9:], 64).mean == pytest.approx(min(losses), rel=1e-6)


def test_two_runs_are_equal_and_another_seed_is_not(tiny, documents, tmp_path):
    def adapter(seed, folder):
        decoder = tiny()
        inject(decoder, LoraConfig(rank=2, alpha=4, dropout=0.1))
        result, _ = run(decoder, documents, folder, seed=seed, token_budget=1500)
        return result.curve, list(decoder.trainable_parameters().values())

    (curve, first), (again, second) = adapter(0, tmp_path / "a"), adapter(0, tmp_path / "b")
    assert curve == again
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert adapter(1, tmp_path / "c")[0] != curve


def test_epochs_bound_the_budget(tiny, documents, tmp_path):
    result, _ = run(tiny(), documents, tmp_path, max_epochs=2, token_budget=10**9)
    assert result.epochs == pytest.approx(2, abs=0.2)


def test_diverging_training_stops_and_names_the_sessions(tiny, documents, tmp_path):
    decoder = tiny()
    decoder.norm.weight.data[0] = float("nan")
    with pytest.raises(UserError, match=r"skipped.json: .*not finite 3 steps in a row \(documents d\d"):
        run(decoder, documents, tmp_path, runtime=RuntimeConfig(max_skipped_steps=3))
    skipped = json.loads((tmp_path / "skipped.json").read_text())
    assert [entry["step"] for entry in skipped] == [1, 2, 3]
    assert all(set(entry["documents"]) <= {d.name for d in documents} and entry["documents"] for entry in skipped)


def test_a_skipped_step_moves_neither_parameters_nor_schedule(tiny, documents, tmp_path):
    """One step is poisoned: the learning rate goes on as if it had not been there."""
    settings = {"token_budget": 1500, "schedule": "linear", "warmup": 0.0}
    run(tiny(), documents, tmp_path / "healthy", **settings)
    decoder = tiny()
    calls = []

    def poison(module, inputs, output):
        calls.append(module.training)
        return output * float("nan") if sum(calls) == 3 and module.training else output

    decoder.norm.register_forward_hook(poison)
    result, _ = run(decoder, documents, tmp_path / "poisoned", **settings)
    assert result.skipped_steps == 1
    healthy, poisoned = (steps_of(tmp_path / name) for name in ("healthy", "poisoned"))
    assert [step["skipped"] for step in poisoned].index(True) == 2
    assert poisoned[2]["loss"] is None
    # The rate of the step after is the one that the skipped step would have used.
    assert poisoned[3]["learning_rate"] == poisoned[2]["learning_rate"] == healthy[2]["learning_rate"]
    assert poisoned[4]["learning_rate"] < poisoned[3]["learning_rate"]


def steps_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]
