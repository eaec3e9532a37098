"""Perplexity of base and tuned therapist, held to transformers and peft token by token."""

import math
from contextlib import nullcontext
from functools import partial
from io import StringIO

import pytest
import torch
from adapter_values import lora_modules
from lessons import documents_for
from peft import PeftModel
from random_model import random_model
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from cbtrain.eval.rating.perplexity import compare_perplexity
from cbtrain.model.adapters.methods import inject, save_adapter
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.plain_text import plain_document
from cbtrain.transcripts.types import Session, Turn

SAID = [
    ("patient", "I feel low."),
    ("therapist", "What went through your mind?"),
    ("patient", "That I fail."),
    ("therapist", "How sure are you, from 0 to 100?"),
]


@pytest.fixture
def study(tmp_path):
    """A decoder with a random adapter, how that is switched on, both folders, and documents of two patients."""
    folder = random_model(tmp_path / "base", "llama")
    decoder = load_decoder(str(folder))
    config = LoraConfig(rank=2, alpha=4)
    inject(decoder, config)
    generator = torch.Generator().manual_seed(3)
    for module in lora_modules(decoder).values():
        module.lora_B.data.copy_(torch.randn(module.lora_B.shape, generator=generator) * 0.3)
    save_adapter(decoder, tmp_path / "adapter", base=str(folder))
    decoder = load_decoder(str(folder))
    adapters = MountedAdapters(decoder)
    adapters.mount("tuned", tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [Turn(role, text) for role, text in SAID]
    documents = {
        "p1": documents_for(tokenizer, turns[:2], turns),
        "p2": documents_for(tokenizer, turns[::-1], system="Be brief."),
    }
    return decoder, partial(adapters.rows, [("tuned", -1)]), folder, tmp_path / "adapter", documents


def quiet():
    return Console(file=StringIO())


def oracle(model, documents):
    """exp of the mean negative log-likelihood of supervised tokens, one document at a time, in float64."""
    total, tokens = 0.0, 0
    for document in documents:
        ids = torch.tensor(document.ids.astype("int64"))[None]
        with torch.no_grad():
            logits = model(ids).logits[0].double()
        likelihood = logits.log_softmax(-1)
        for t in range(1, len(document)):
            if document.supervised[t]:
                total -= likelihood[t - 1, ids[0, t]].item()
                tokens += 1
    return math.exp(total / tokens), tokens


def test_both_arms_equal_transformers_and_peft(study):

    decoder, tuned, folder, adapter, documents = study
    found = compare_perplexity(decoder, tuned, documents, {"p1": "Ada"}, 64, quiet())
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = {row["patient"]: row for row in found["patients"]}
    assert [rows[p]["name"] for p in ("p1", "p2")] == ["Ada", "p2"]
    for patient, own in documents.items():
        expected, tokens = oracle(base, own)
        assert rows[patient]["tokens"] == tokens
        assert rows[patient]["base"] == pytest.approx(expected, rel=1e-4)
    tuned = PeftModel.from_pretrained(base, str(adapter))
    for patient, own in documents.items():
        expected, _ = oracle(tuned, own)
        assert rows[patient]["tuned"] == pytest.approx(expected, rel=1e-4)
        assert rows[patient]["tuned"] != pytest.approx(rows[patient]["base"], rel=1e-2)
        assert rows[patient]["change_percent"] == pytest.approx(100 * (expected / rows[patient]["base"] - 1), rel=1e-2)


def test_an_adapter_that_does_nothing_changes_nothing(study):
    decoder, tuned, _, _, documents = study
    changed = compare_perplexity(decoder, tuned, documents, {}, 64, quiet())
    still = compare_perplexity(decoder, nullcontext, documents, {}, 64, quiet())
    assert [row["change_percent"] for row in still["patients"]] == [0.0, 0.0]
    assert [r["base"] for r in still["patients"]] == [r["base"] for r in changed["patients"]]
    assert "not helped" in still["verdict"]


def test_a_trained_head_is_measured_too(study, tmp_path):
    decoder, _, folder, _, documents = study
    other = load_decoder(str(folder))
    adapter = inject(other, LoraConfig(rank=2, modules_to_save=["lm_head"]))
    adapter.parameters()["lm_head.weight"].data.mul_(1.5)
    save_adapter(other, tmp_path / "head", base=str(folder))
    adapters = MountedAdapters(decoder)
    adapters.mount("head", tmp_path / "head")
    found = compare_perplexity(decoder, partial(adapters.rows, [("head", -1)]), documents, {}, 64, quiet())
    reference = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(tmp_path / "head"))
    rows = {row["patient"]: row for row in found["patients"]}
    for patient, own in documents.items():
        assert rows[patient]["tuned"] == pytest.approx(oracle(reference, own)[0], rel=1e-4)


def test_the_verdict_counts_patients_and_weighs_each_the_same(study):
    decoder, tuned, _, _, documents = study
    found = compare_perplexity(decoder, tuned, documents, {}, 64, quiet())
    changes = [row["change_percent"] for row in found["patients"]]
    assert found["mean_change_percent"] == pytest.approx(sum(changes) / 2)
    assert f"{sum(change < 0 for change in changes)} of 2" in found["verdict"]
    assert compare_perplexity(decoder, tuned, {}, {}, 64, quiet())["verdict"].startswith("Not measured")


def test_the_layouts_part_of_the_change_is_told_apart(study):
    decoder, tuned, folder, _, documents = study
    tokenizer = AutoTokenizer.from_pretrained(folder)
    session = Session("p1", 1, tuple(Turn(role, text) for role, text in SAID))
    plain = {patient: [plain_document(session, tokenizer, "therapist")] for patient in documents}
    found = compare_perplexity(decoder, tuned, documents, {}, 64, quiet(), plain)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected, tokens = oracle(base, plain["p1"])
    words = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for r, text in SAID if r == "therapist")
    assert tokens == words
    assert [row["base_plain"] for row in found["patients"]] == pytest.approx([expected] * 2, rel=1e-4)
    change = sum(100 * (row["tuned"] / expected - 1) for row in found["patients"]) / 2
    assert f"{'behind' if change < 0 else 'ahead'} by {abs(change):.1f} %" in found["verdict"]
    assert "layout" not in compare_perplexity(decoder, tuned, documents, {}, 64, quiet())["verdict"]
