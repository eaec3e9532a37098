import io
import json
import math

import pytest
import torch
from rich.console import Console

from cbtrain.errors import UserError
from cbtrain.model.adapters.adapter import trainable
from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import LoraConfig
from cbtrain.training.config import TrainingConfig
from cbtrain.training.loop import train
from cbtrain.training.validation import measure_loss


def run(decoder, documents, folder, validation=None, **changes):
    settings = {"learning_rate": 1e-2, "pack_tokens": 64, "token_budget": 4000, "max_epochs": 99}
    settings |= {"validate_every": 500, "patience": 99}
    config = TrainingConfig(**(settings | changes))
    out = io.StringIO()
    held_out = documents[9:] if validation is None else validation
    return train("tiny", decoder, documents[:9], held_out, config, folder, Console(file=out)), out.getvalue()


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
    assert all(math.isfinite(s["loss"]) and s["grad_norm"] > 0 for s in steps)
    assert "validation loss" in out


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
        return result.curve, trainable(decoder)

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
    with pytest.raises(UserError, match=r"d\d.*not finite 5 steps in a row"):
        run(decoder, documents, tmp_path)
