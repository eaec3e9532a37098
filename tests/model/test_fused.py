"""The layer with a backward pass by hand, against autograd: the same gradients at every level, and nothing left over."""

import copy
import gc
from dataclasses import replace

import pytest
import torch
from adapted_decoder import EVERYTHING, adapted, errors, gradients, pack_of
from tiny_architecture import TINY

from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.model.fused import layer
from cbtrain.model.fused.layer import How, Weights, fused_layer
from cbtrain.model.fused.levels import LEVELS
from cbtrain.model.fused.obstacles import obstacle
from cbtrain.model.fused.savings import Savings
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.rope import cos_sin
from cbtrain.training.loss import loss_sum
from cbtrain.training.memory.allocations import LiveStorages
from cbtrain.training.planning.random_model import random_decoder
from cbtrain.training.planning.scenario import Scenario

PLAIN = Savings(fused=False)


CONFIGS = {
    "all linears": LoraConfig(rank=4),
    "rsLoRA, other ranks": LoraConfig(rank=4, rslora=True, rank_pattern={"up_proj": 7, "layers.1.self_attn.q_proj": 2}),
    "few linears": LoraConfig(rank=4, targets=["k_proj", "up_proj"]),
    "one layer": LoraConfig(rank=4, layers=[1]),
    "after attention of the first": LoraConfig(rank=4, layers=[0], targets=["o_proj", "down_proj"]),
    "embeddings too": LoraConfig(rank=4, modules_to_save=["embed_tokens", "lm_head"]),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("architecture", [TINY, EVERYTHING], ids=["llama", "everything"])
def test_gradients_are_those_of_the_plain_path_at_every_level(architecture, name, monkeypatch):
    monkeypatch.setattr(layer, "FOLD_FROM", 400)  # the first pack folds, the second does not
    decoder = adapted(architecture, CONFIGS[name])
    exact = copy.deepcopy(decoder).double()
    for pack in (pack_of(500, 300, 3), pack_of(150, 1, 60)):
        decoder.savings = PLAIN
        loss, truth = gradients(decoder, pack)
        decoder.savings = Savings()
        in_fp64 = gradients(exact, pack)[1]  # by the way that finite differences confirm below
        assert max(errors(truth, in_fp64).values()) < 3e-5
        first = None
        for level in (*LEVELS, tuple(LEVELS[n % 4] for n in range(architecture.layers))):
            decoder.activation_checkpointing = level
            fused, found = gradients(decoder, pack)
            assert fused == pytest.approx(loss, rel=1e-6)
            assert max(errors(found, truth).values()) < 3e-5
            first = first or found
            assert all(torch.equal(found[n], first[n]) for n in first)  # what is computed again is the same
        for decoder.savings in (Savings(folded=False), Savings(pruned=False), Savings(logits=False)):
            assert max(errors(gradients(decoder, pack)[1], truth).values()) < 3e-5


@pytest.mark.parametrize("architecture", [TINY, EVERYTHING], ids=["llama", "everything"])
@pytest.mark.parametrize("folds", [True, False])
def test_numerical_gradients_of_a_layer(architecture, folds, monkeypatch):
    """fp64 and finite differences: of the layer's input and of every A and B, with rows left out at its end."""
    monkeypatch.setattr(layer, "FOLD_FROM", 0 if folds else 1000)
    config = LoraConfig(rank=2, targets=["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    decoder = adapted(replace(architecture, sliding_window=None), config, torch.float64)
    block, rows = decoder.layers[0], torch.tensor([1, 2, 5])
    cos, sin = (t.double()[:, : TINY.head_dim // 2] for t in cos_sin(torch.arange(6), decoder.frequencies))
    attend = decoder.packed([0, 4, 6])
    x = torch.randn(6, TINY.hidden, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    parameters = [
        p
        for module in decoder.adapter.modules.values()
        if "layers.0." in module.path
        for p in (module.lora_A, module.lora_B)
    ]

    def out(x, *_):
        return fused_layer(block, x, (cos, sin), attend, How("selective", rows, 2))

    assert torch.autograd.gradcheck(out, (x, *parameters), fast_mode=True)


WIDER = replace(TINY, hidden=64, head_dim=16, intermediate=128)


def random_one(name, dtype, seed):
    scenario = Scenario(WIDER, WeightFormat(name, dtype), LoraConfig(rank=4))
    decoder = random_decoder(scenario, torch.device("cpu"))
    for parameter in decoder.trainable_parameters().values():
        parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
    return decoder


def test_four_bits():
    pack, decoder = pack_of(90, 50), random_one("nf4", torch.float32, 0)
    decoder.savings = PLAIN
    plain = gradients(decoder, pack)[1]
    decoder.savings = Savings()
    assert all(obstacle(block) is None for block in decoder.layers)
    for level in LEVELS:
        decoder.activation_checkpointing = level
        assert max(errors(gradients(decoder, pack)[1], plain).values()) < 3e-5


def test_in_bf16_it_is_as_near_to_fp64_as_the_plain_path():
    ratios = []
    for seed in range(6):
        pack, decoder = pack_of(90, 50, seed=seed), random_one("bf16", torch.bfloat16, seed)
        truth = gradients(copy.deepcopy(decoder).double(), pack)[1]
        by_path = []
        for decoder.savings in (Savings(), PLAIN):
            by_path.append(errors(gradients(decoder, pack)[1], truth))
        fused, plain = by_path
        ratios.append(sum(fused[n] / plain[n] for n in plain) / len(plain))
    assert sum(ratios) / len(ratios) < 1.3


def test_what_is_left_to_autograd_is_said_and_computed_by_it():
    pack = pack_of(40, 30)
    for config, reason in (
        (LoraConfig(rank=4, dora=True), "DoRA"),
        (LoraConfig(rank=4, dropout=0.2), "LoRA dropout"),
        (FullConfig(), "trained base weights"),
    ):
        decoder = Decoder(TINY)
        initialize(decoder, 0)
        inject(decoder, config)
        decoder.train()
        assert obstacle(decoder.layers[0]) == reason
        decoder.savings = PLAIN
        wanted = gradients(decoder, pack)[1]
        decoder.savings = Savings()
        for level in LEVELS:
            decoder.activation_checkpointing = level
            found = gradients(decoder, pack)[1]
            assert all(torch.equal(found[n], wanted[n]) for n in wanted), (reason, level)
    decoder = adapted(TINY, LoraConfig(rank=4))
    decoder.layers[0].self_attn.q_proj.base.weight.ds_id = 1
    assert obstacle(decoder.layers[0]) == "ZeRO stage 3"
    assert obstacle(decoder.layers[1]) is None
    decoder = adapted(EVERYTHING, LoraConfig(rank=4))
    for norm in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
        weight = decoder.layers[1].get_submodule(norm).weight.requires_grad_()
        assert obstacle(decoder.layers[1]) == "trained norms"
        weight.requires_grad_(False)


def test_less_is_kept_by_level_and_nothing_stays():
    """5,376 numbers a token at the shape of the benchmark, where autograd keeps 9,466: here in the same proportions."""
    decoder, pack = adapted(TINY, LoraConfig(rank=2)), pack_of(300, 200)
    a, kept = TINY, {}
    for level in LEVELS:
        decoder.activation_checkpointing = level
        with LiveStorages() as live:
            loss = loss_sum(decoder, pack)
            kept[level] = live.bytes
            del loss  # without a backward pass
            gc.collect()
            assert live.bytes == 0
            loss_sum(decoder, pack).backward()
            for parameter in decoder.trainable_parameters().values():
                parameter.grad = None
            gc.collect()
            assert live.bytes == 0
    assert sorted(kept.values(), reverse=True) == list(kept.values())
    tokens, q, k = pack.tokens, a.heads * a.head_dim, a.kv_heads * a.head_dim
    one_layer_and_a_last = tokens * (2 * a.hidden + 2 * (2 * q + 2 * k + a.heads))
    selected = pack.supervised * (a.hidden + 2 * a.intermediate)
    whole = tokens * (a.hidden + 2 * a.intermediate)
    rest = kept["full"] / 4 - 2 * tokens * a.hidden  # embedding, angles, head
    assert kept["none"] / 4 == pytest.approx(one_layer_and_a_last + selected + whole + rest, rel=0.02)


def test_joined_weights_are_the_linears_own():
    decoder = adapted(TINY, LoraConfig(rank=4))
    linears = [decoder.layers[0].self_attn.get_submodule(f"{name}.base") for name in ("q_proj", "k_proj", "v_proj")]
    storages = {linear.weight.untyped_storage().data_ptr() for linear in linears}
    assert len(storages) == 1
    assert linears[0].weight.untyped_storage().nbytes() == sum(linear.weight_bytes for linear in linears)
    pack = pack_of(30)
    before = gradients(decoder, pack)[1]
    for linear in linears:  # a move or a cast takes them apart: they are joined again
        linear.weight.data = linear.weight.data.clone()
    assert all(torch.equal(found, before[name]) for name, found in gradients(decoder, pack)[1].items())
    assert len({linear.weight.untyped_storage().data_ptr() for linear in linears}) == 1
    with LiveStorages() as live:  # of the old weights nothing is held by what joined them
        decoder.double()
        decoder.float()
        gc.collect()
        gradients(decoder, pack)
        for parameter in decoder.trainable_parameters().values():
            parameter.grad = None
        gc.collect()
        whole = live.bytes
        decoder.double()
        gc.collect()
        assert live.bytes == pytest.approx(2 * whole, rel=0.01)
        decoder.float()
    weights = Weights.of(decoder.layers[0])
    decoder.adapter.remove()
    inject(decoder, LoraConfig(rank=2))
    assert Weights.of(decoder.layers[0]) is weights


def test_no_work_below_the_first_adapter():
    pack, products = pack_of(60), {}
    for layers in ([0, 1, 2], [2]):
        decoder = adapted(EVERYTHING, LoraConfig(rank=4, layers=layers))
        loss = loss_sum(decoder, pack)
        node, seen = [loss.grad_fn], set()
        while node:
            for before, _ in node.pop().next_functions:
                if before is not None and before not in seen:
                    seen.add(before)
                    node.append(before)
        products[len(layers)] = sum("_Layer" in type(each).__name__ for each in seen)
    assert products == {3: 3, 1: 1}


def test_a_second_backward_pass_gives_the_same_again():
    decoder = adapted(TINY, LoraConfig(rank=4))
    loss = loss_sum(decoder, pack_of(20))
    loss.backward(retain_graph=True)
    once = {name: p.grad.clone() for name, p in decoder.trainable_parameters().items()}
    loss.backward()
    assert all(torch.equal(p.grad, 2 * once[name]) for name, p in decoder.trainable_parameters().items())
