"""All weights trained: a model folder of its own, and two arms of one decoder when it is loaded beside its base."""

import json

import pytest
import torch
from random_model import random_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from cbtrain.errors import UserError
from cbtrain.model.adapters.methods import inject, load_adapter, save_adapter
from cbtrain.model.config import FullConfig
from cbtrain.model.weights.loading import load_decoder

IDS = torch.arange(20, 60)  # no padding token: its embedding gets no gradient in transformers


def logits(decoder):
    return decoder.logits(decoder(IDS, torch.arange(40), decoder.packed([0, 40])))


@pytest.fixture
def tuned(tmp_path):
    base = random_model(tmp_path / "base", "llama")
    decoder = load_decoder(str(base))
    adapter = inject(decoder, FullConfig())
    assert len(decoder.trainable_parameters()) == len(adapter.parameters()) == 21
    with torch.no_grad():
        for parameter in decoder.trainable_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save_adapter(decoder, tmp_path / "tuned", base=str(base), provenance={"speaker": "therapist"})
    return base, tmp_path / "tuned", logits(decoder).detach()


def test_what_is_saved_is_a_model_for_transformers(tuned):
    _, folder, expected = tuned
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(model(IDS[None]).logits[0].detach(), expected, atol=1e-4, rtol=0)
    assert AutoTokenizer.from_pretrained(folder).vocab_size > 0


def test_gradients_reach_every_weight(tmp_path):
    base = random_model(tmp_path / "base", "llama")
    decoder = load_decoder(str(base))
    inject(decoder, FullConfig())
    logits(decoder).logsumexp(-1).sum().backward()
    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    reference(IDS[None]).logits.logsumexp(-1).sum().backward()
    expected = dict(reference.named_parameters())
    for name, parameter in decoder.adapter.parameters().items():
        theirs = expected[name if name.startswith("lm_head") else f"model.{name}"].grad
        assert (parameter.grad - theirs).norm() / theirs.norm() < 1e-5, name


def test_base_and_tuned_are_two_arms_of_one_decoder(tuned):
    base, folder, expected = tuned
    decoder = load_decoder(str(base))
    before = logits(decoder)
    load_adapter(decoder, folder)
    torch.testing.assert_close(logits(decoder), expected, atol=1e-5, rtol=0)
    with decoder.with_adapter(False):
        assert torch.equal(logits(decoder), before)
    torch.testing.assert_close(logits(decoder), expected, atol=1e-5, rtol=0)


def test_bf16_weights_stay_bf16_and_are_saved_as_the_masters_are(tmp_path):
    base = random_model(tmp_path / "base", "llama")
    decoder = load_decoder(str(base), weights="bf16")
    inject(decoder, FullConfig())
    assert decoder.dtype == torch.bfloat16
    assert all(parameter.requires_grad for parameter in decoder.parameters())
    masters = {name: parameter.detach().float() + 1e-5 for name, parameter in decoder.adapter.parameters().items()}
    save_adapter(decoder, tmp_path / "tuned", base="org/model", values=masters)
    saved = load_file(tmp_path / "tuned" / "model.safetensors")
    assert torch.equal(saved["model.norm.weight"], masters["norm.weight"])
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["dtype"] == "float32"
    read = decoder.adapter.read(tmp_path / "tuned")
    assert read.keys() == masters.keys()
    assert all(torch.equal(read[name], value) for name, value in masters.items())


def test_a_tuned_hub_model_is_whole_and_says_what_ends_an_answer(tmp_path):
    base = random_model(tmp_path / "base", "llama")
    decoder = load_decoder(str(base))
    inject(decoder, FullConfig())
    beside = {"chat_format.json": json.dumps({"stop_token_ids": [7]})}
    save_adapter(decoder, tmp_path / "tuned", base="org/model", extra_files=beside)
    assert AutoTokenizer.from_pretrained(tmp_path / "tuned").vocab_size > 0
    known = json.loads((base / "config.json").read_text())["eos_token_id"]
    assert GenerationConfig.from_pretrained(tmp_path / "tuned").eos_token_id == [7, known]
    assert "base_model: org/model" in (tmp_path / "tuned" / "README.md").read_text()


def test_what_does_not_fit_is_refused(tuned, tmp_path):
    base, folder, _ = tuned
    with pytest.raises(UserError, match="method full cannot train weights in nf4"):
        inject(load_decoder(str(base), weights="nf4"), FullConfig())
    with pytest.raises(UserError, match="method full cannot train weights in nf4"):
        load_adapter(load_decoder(str(base), weights="nf4"), folder)
    other = random_model(tmp_path / "other", "llama")
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, other / "model.safetensors")
    with pytest.raises(UserError, match="another base model"):
        load_adapter(load_decoder(str(other)), folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 77.0
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"config\.json differs from the base's"):
        load_adapter(load_decoder(str(base)), folder)
    decoder = load_decoder(str(base))
    inject(decoder, FullConfig())
    with pytest.raises(RuntimeError, match="base's weights are gone"), decoder.with_adapter(False):
        pass
