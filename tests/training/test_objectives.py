"""Pairs of answers: packed with their beginning shared, they have the loss and the gradients of the plain way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapted_decoder import adapted, errors
from batches import micro_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_documents import pair, plain_answers
from tiny_architecture import TINY

from cbtrain.model.config import LoraConfig
from cbtrain.model.fused.savings import Savings
from cbtrain.tokens.pack import build_pack
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.step import train_step

LORA = LoraConfig(rank=3, alpha=6)
OBJECTIVES = {
    "orpo": {"objective": "orpo", "preference": {"beta": 0.3}},
    "orpo of the text": {"objective": "orpo", "preference": {"likelihood": "text"}},
    "dpo": {"objective": "dpo", "preference": {"beta": 0.2, "label_smoothing": 0.1, "sft_weight": 0.5}},
    "ipo": {"objective": "dpo", "preference": {"loss": "ipo"}},
}


def stage(name, **changes):
    return StageConfig(**OBJECTIVES[name], **changes)


def plain_loss(decoder, wholes, documents, config):
    """Return the loss by the formulas of the papers, and two documents a pair."""
    c, total = config.preference, 0.0
    for whole, document in zip(wholes, documents, strict=True):
        prompt = document.branches.chosen + 1
        chosen, rejected, before = plain_answers(decoder, whole, prompt=prompt)
        with torch.no_grad(), decoder.with_adapter(False):
            base_chosen, base_rejected, _ = plain_answers(decoder, whole, prompt=prompt)
        (s_chosen, n), (s_rejected, m), (s_before, k) = chosen, rejected, before
        likelihood = -(s_chosen + s_before) / (n + k)
        if config.objective == "orpo":
            p, q = torch.exp(s_chosen / n), torch.exp(s_rejected / m)
            value = likelihood - c.beta * torch.log(torch.sigmoid(torch.log(p / (1 - p)) - torch.log(q / (1 - q))))
        elif c.loss == "ipo":
            gain = (s_chosen - base_chosen[0]) / n - (s_rejected - base_rejected[0]) / m
            value = (gain - 1 / (2 * c.beta)) ** 2
        else:
            gain = c.beta * ((s_chosen - base_chosen[0]) - (s_rejected - base_rejected[0]))
            e = c.label_smoothing
            value = -(1 - e) * F.logsigmoid(gain) - e * F.logsigmoid(-gain) + c.sft_weight * likelihood
        total = total + document.branches.weight * value
    return total / sum(document.branches.weight for document in documents)


class Recorder(TorchEngine):
    """A real engine that keeps the gradients of the step."""

    def step(self, learning_rate):
        self.gradients = {name: p.grad.clone() for name, p in self.live.items()}
        return super().step(learning_rate)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(list(OBJECTIVES)),
    st.lists(st.tuples(*[st.integers(2, 40)] * 3), min_size=1, max_size=4),
    st.sampled_from(["none", "selective", "full", "autograd", "window"]),
    st.integers(0, 2**20),
)
def test_packed_pairs_have_the_loss_and_gradients_of_two_documents_each(name, sizes, way, seed):
    config, random = stage(name), np.random.default_rng(seed)
    text = config.preference.likelihood == "text"
    made = [
        pair(
            random,
            TINY.vocabulary,
            shared=shared,
            chosen=chosen,
            rejected=rejected,
            weight=1 + number / 2,
            prompt_counts=text,
            gaps=0.3,
        )
        for number, (shared, chosen, rejected) in enumerate((a + 1, b, c) for a, b, c in sizes)
    ]
    documents, wholes = [document for document, _ in made], [whole for _, whole in made]
    architecture = replace(TINY, sliding_window=9) if way == "window" else TINY

    def make():
        decoder = adapted(architecture, LORA, torch.float64)
        decoder.activation_checkpointing = way if way in ("selective", "full") else "none"
        decoder.savings = Savings(fused=way != "autograd")
        return decoder

    decoder = make()
    loss = plain_loss(decoder, wholes, documents, config)
    loss.backward()
    wanted = {n: p.grad.clone() for n, p in decoder.trainable_parameters().items()}
    decoder.zero_grad()
    # All in one pack, and one by one: the same loss of the step.
    for packs in ([documents], [[document] for document in documents]):
        engine = Recorder(make(), config.model_copy(update={"clip_norm": 1e9}))
        engine.masters = engine.live  # fp64 is not rounded to fp32 masters
        engine.rounded = []
        result = train_step(engine.decoder, engine, micro_batches([build_pack(pack) for pack in packs]), 1e-3)
        assert result.loss == pytest.approx(loss.item(), rel=1e-6)
        assert max(errors(engine.gradients, wanted).values()) < 1e-6
        assert result.pairs["pairs"] == len(documents)
