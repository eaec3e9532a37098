"""What is forgotten: against plain numbers from transformers, and without a trace in the model that is measured."""

import math

import numpy as np
import pytest
import torch
from adapter_values import randomize
from random_model import random_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from cbtrain.errors import UserError
from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.model.method_settings import HalfConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.document import Document
from cbtrain.tokens.general_text import first_tokens, passage_documents, read_passages
from cbtrain.training import forgetting
from cbtrain.training.forgetting import CannotMeasure, Forgetting, TextForgetting, measure

METHODS = {
    "lora": LoraConfig(rank=4, dropout=0.3, modules_to_save=["embed_tokens", "lm_head"]),
    "dora": LoraConfig(rank=4, dora=True),
    "full": FullConfig(),
    "half": HalfConfig(),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("base"), "llama")


@pytest.fixture(scope="module")
def texts(base):
    """Documents of which the loss counts some tokens, one of them none."""
    random = np.random.default_rng(0)
    documents = [
        Document(f"d{n}", random.integers(0, 300, n).astype(np.int32), (random.random(n) < 0.6).astype(np.float32))
        for n in (7, 40, 3, 90)
    ]
    return [*documents, Document("none", np.arange(5, dtype=np.int32), np.zeros(5, np.float32))]


def tuned(base, method, changed=True):
    decoder = load_decoder(str(base)).train()
    inject(decoder, METHODS[method], seed=1)
    if changed and method in ("lora", "dora"):
        randomize(decoder)
    elif changed:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in decoder.trainable_parameters().values():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return decoder


@torch.no_grad()
def naive(base, decoder, documents):
    """Tokens, losses and KL by whole documents in fp64, with the effective weights in a transformers model."""
    models = [AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32) for _ in range(2)]
    for name, parameter in models[1].named_parameters():
        ours = name.removeprefix("model.")
        if ours in decoder.adapter.changed():
            parameter.copy_(decoder.adapter.effective_weight(ours, parameter.detach()))
    sums, tokens = np.zeros(3), 0
    for document in documents:
        ids = torch.from_numpy(document.ids.astype(np.int64))
        expected, found = (model.double()(ids[None]).logits[0].log_softmax(-1) for model in models)
        for place in np.flatnonzero(document.supervised[1:]):
            p, q, token = expected[place], found[place], ids[place + 1]
            sums += [-p[token].item(), -q[token].item(), (p.exp() * (p - q)).sum().item()]
            tokens += 1
    return tokens, *(sums / tokens)


@pytest.mark.parametrize("method", METHODS)
def test_numbers_are_those_of_transformers_and_nothing_is_changed(base, texts, method, monkeypatch):
    decoder = tuned(base, method)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    random = torch.get_rng_state()
    monkeypatch.setattr(forgetting, "rows_at_once", lambda *_: 0)
    monkeypatch.setattr(forgetting, "FEWEST_ROWS", 7)
    found = measure(decoder, texts, 64)
    tokens, *numbers = naive(base, decoder, texts)
    assert found.tokens == tokens > 60
    assert [found.base_loss, found.tuned_loss, found.kl] == pytest.approx(numbers, rel=2e-5)
    assert found.kl > 0.01
    assert decoder.training
    assert decoder.adapter.enabled
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in decoder.trainable_parameters().values())


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_that_has_learnt_nothing_has_forgotten_nothing(base, texts, method):
    found = measure(tuned(base, method, changed=False), texts, 64)
    assert found.rise == pytest.approx(0, abs=1e-6)
    assert 0 <= found.kl < 1e-6


@torch.no_grad()
def test_logits_that_underflow_give_finite_numbers(base, texts):
    decoder = tuned(base, "full")
    decoder.lm_head.weight.mul_(1e4)
    found = measure(decoder, texts, 64)
    assert found.kl > 100
    assert math.isfinite(found.kl)
    assert math.isfinite(found.tuned_loss)


def test_why_it_cannot_be_measured_is_said(base, texts, monkeypatch):
    decoder = tuned(base, "full")
    before = decoder.embed_tokens.weight.clone()
    monkeypatch.setattr(forgetting, "available_memory", lambda: 1000)
    with pytest.raises(CannotMeasure, match="do not fit beside the tuned ones: they take 0.0 GB"):
        measure(decoder, texts, 64)
    assert torch.equal(decoder.embed_tokens.weight, before)
    with pytest.raises(CannotMeasure, match="no adapter"):
        measure(load_decoder(str(base)), texts, 64)


def test_a_large_rise_is_said_with_its_threshold():
    large, small = Forgetting(900, 2.5, 2.7, 0.3), Forgetting(900, 2.5, 2.59, 0.3)
    risen = TextForgetting.of("general text", "a text", large)
    assert risen.warning == (
        "Warning: the tuned model's perplexity on general text rose by 22% (12.2 to 14.9): more than 10%"
    )
    assert risen.in_words == "general text, 900 tokens: perplexity 12.2 before, 14.9 after (+22.1%), KL 0.3"
    assert TextForgetting.of("general text", "a text", small).warning == ""
    few = TextForgetting.of("general text", "a text", Forgetting(9, 2.5, 2.7, 0.3))
    assert few.warning == ""
    assert few.in_words.startswith("general text, 9 tokens (too few to mean anything): perplexity")
    broken = TextForgetting.of("general text", "a text", Forgetting(9, 2.5, math.nan, math.nan))
    assert (broken.tuned_perplexity, broken.kl) == (None, None)
    assert "is not finite" in broken.warning


def test_the_text_that_ships_and_a_users(base, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base)
    passages = read_passages(None)
    assert len(passages) == 16
    assert 2500 < sum(len(passage.split()) for passage in passages) < 3000  # about 3,700 tokens of a large vocabulary
    documents = passage_documents(passages, tokenizer, positions=200, vocabulary=len(tokenizer))
    assert max(map(len, documents)) == 200
    ids = [token for document in documents for token in document.ids[1:].tolist()]
    assert tokenizer.decode(ids) == "".join(passages)  # no token is lost, and the one before each window is ours
    with pytest.raises(UserError, match=r"passage 1: token \d+ occurs in it, but the model has only 260 embeddings"):
        passage_documents(passages, tokenizer, positions=200, vocabulary=260)
    taken = first_tokens(documents, 300)
    assert [int(document.supervised[1:].sum()) for document in taken] == [199, 101]
    mine = tmp_path / "mine.txt"
    for content, problem in ((b" \n* * *\n", "holds no text"), (b"caf\xe9", "UTF-8"), (None, "no such file")):
        if content is None:
            mine.unlink()
        else:
            mine.write_bytes(content)
        with pytest.raises(UserError, match=problem) as told:
            read_passages(str(mine))
        assert "training.forgetting.text" in str(told.value)
    mine.write_text("\ufeffEins.\r\n * * * \r\nZwei.\n\nDrei.\n", encoding="utf-8")
    assert read_passages(str(mine)) == ["Eins.", "Zwei.\n\nDrei."]
