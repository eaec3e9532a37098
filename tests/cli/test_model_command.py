"""``cbtrain model``: what a model is, as a table and as JSON, and one line where something is wrong."""

import json

import pytest
from command import cbtrain
from random_model import random_model

from cbtrain.model.adapters.methods import inject, save_adapter
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder


def run(*arguments):
    return cbtrain("model", *arguments, cwd=".")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    base = random_model(folder / "base", "mistral-window")
    decoder = load_decoder(str(base))
    inject(decoder, LoraConfig(rank=2))
    save_adapter(decoder, folder / "adapter", base=str(base))
    return base, folder / "adapter", decoder


def test_what_a_model_is(made):
    base, adapter, decoder = made
    done = run(base, "--json", "--adapter", adapter)
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["fingerprint"] == decoder.fingerprint
    assert (facts["weights"], facts["bytes_per_parameter"], facts["attention"]) == ("fp32", 4.0, "sdpa")
    assert facts["adapter_parameters"] == sum(p.numel() for p in decoder.adapter.parameters().values())
    assert facts["adapter"] == decoder.adapter.describe()
    assert facts["sliding_window"] == 11
    assert "CUDA" in facts["attention_backends"]["torch-varlen"]
    assert "CUDA" in facts["kernels"]["rope"]
    table = run(base, "--weights", "nf4")
    assert "nf4, double quantization, computing in fp32" in " ".join(table.stdout.split())
    assert "window 11" in table.stdout
    assert "can serve (chosen)" in table.stdout


def test_what_cannot_be_is_one_line(made, tmp_path):
    base, _, _ = made
    for arguments, message in (
        ((tmp_path / "none",), "no such model folder"),
        ((base, "--compute", "bf16", "--weights", "fp32"), "--compute: model: fp32 weights compute in their own dtype"),
        ((base, "--attention", "torch-varlen"), "'torch-varlen' cannot be used"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert message in done.stderr
