"""What steps: against plain AdamW, and by what it keeps in memory."""

import pytest
import torch
from batches import micro_batches

from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.tokens.pack import build_pack
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.optimizers import make_optimizer
from cbtrain.training.packs import open_stream
from cbtrain.training.step import train_step


def trained(tiny, documents, steps=6, method="full", **settings):
    decoder = tiny().train()
    inject(decoder, FullConfig() if method == "full" else LoraConfig(rank=3, alpha=6), seed=1)
    engine = TorchEngine(decoder, StageConfig(method=method, weight_decay=0.0, **settings))
    losses = [train_step(decoder, engine, micro_batches([build_pack(documents)]), 1e-2).loss for _ in range(steps)]
    return losses, engine


@pytest.mark.parametrize("name", ["adamw8bit", "paged_adamw", "paged_adamw8bit"])
def test_bitsandbytes_follows_adamw(tiny, documents, name):
    expected, _ = trained(tiny, documents)
    found, _ = trained(tiny, documents, optimizer=name)
    assert found == pytest.approx(expected, rel=1e-4 if name == "paged_adamw" else 2e-2)
    assert found[-1] < found[0] - 0.1


def test_eight_bits_take_a_quarter():
    weight = {"w": torch.nn.Parameter(torch.randn(256, 256))}
    held = {}
    for name in ("adamw", "adamw8bit"):
        optimizer = make_optimizer(weight, StageConfig(optimizer=name))
        weight["w"].grad = torch.randn(256, 256)
        optimizer.step()
        states = [v for v in optimizer.state[weight["w"]].values() if isinstance(v, torch.Tensor)]
        held[name] = sum(v.numel() * v.element_size() for v in states)
    assert held["adamw8bit"] < 0.3 * held["adamw"]


def test_lora_plus_moves_b_faster(tiny, documents):
    """AdamW's first step has the size of the learning rate, whatever the gradient."""

    def first_step(ratio):
        decoder = tiny().train()
        inject(decoder, LoraConfig(rank=3, alpha=6), seed=1)
        engine = TorchEngine(decoder, StageConfig(weight_decay=0.0, lora_plus_ratio=ratio))
        for _ in range(2):  # A has no gradient before B has moved
            before = engine.parameters()
            train_step(decoder, engine, micro_batches([build_pack(documents)]), 1e-3)
        after = engine.parameters()
        return {
            leaf: max((after[n] - before[n]).abs().max().item() for n in after if leaf in n) for leaf in ("_A", "_B")
        }

    plain, plus = first_step(None), first_step(16.0)
    assert plain["_B"] == pytest.approx(1e-3, rel=0.5)
    assert plus["_B"] > 8 * plain["_B"]
    assert plus["_A"] < 2 * plain["_A"]


def test_a_step_is_as_many_tokens_as_asked_for(documents, tiny):
    architecture = tiny().architecture
    total = sum(map(len, documents))
    config = StageConfig(pack_tokens=64, tokens_per_step=128)
    stream = open_stream(documents, config, architecture, "stage")
    sizes = [sum(len(documents[i]) for pack in step for i in pack) for step in stream.plan(0).steps]
    assert sum(sizes) == total
    assert total / len(sizes) == pytest.approx(128, rel=0.3)
    # An interrupted run goes on with the number it was planned with.
    assert open_stream(documents, config, architecture, "stage", 5).packs_per_step == 5
