"""HypLoRA: the published map and the program's, by numbers that were computed from the originals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from random_model import random_model
from tiny_architecture import TINY

from cbtrain.errors import UserError
from cbtrain.model.adapters.dropout import KeyedDropout
from cbtrain.model.adapters.hyplora import LEAST_K, HypLoraLinear
from cbtrain.model.adapters.merge import merge
from cbtrain.model.adapters.methods import inject, load_adapter, save_adapter
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.linears.dense import DenseLinear
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.method_settings import HypLoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.training.config import StageConfig
from cbtrain.training.planning.meta_model import meta_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.trace import trace
from cbtrain.training.planning.workload import PackShape

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = np.load(GOLDEN / "hyplora.npz")
CASES = json.loads((GOLDEN / "hyplora_cases.json").read_text())["cases"]
SCALE = 2.0
FP32 = WeightFormat("fp32", torch.float32)
TOLERANCE = 1e-10


def number(name):
    return torch.from_numpy(NUMBERS[name])


def linear(rank, reproduce, k, s, *, zero=False):
    config = HypLoraConfig(rank=rank, alpha=SCALE * rank, reproduce=reproduce)
    base = DenseLinear(12, 10, bias=False)
    made = HypLoraLinear(base, "path", config, KeyedDropout(0.0, seed=0), torch.device("cpu")).double()
    with torch.no_grad():
        base.weight.copy_(number("W"))
        made.lora_A.copy_(number(f"A_r{rank}"))
        made.lora_B.copy_(number(f"B_r{rank}") * (not zero))
        made.k.fill_(k)
        made.norm_scale.fill_(s)
    return made


def found(made, x):
    x = x.clone().requires_grad_()
    delta = made.update(x)
    (delta * number("G")).sum().backward()
    parts = {"delta": delta, "dx": x.grad, "dA": made.lora_A.grad, "dB": made.lora_B.grad, "dk": made.k.grad}
    return {name: part.detach() for name, part in parts.items()} | {"ds": made.norm_scale.grad}


def close(got, wanted):
    return float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-300)) if wanted.numel() else 0.0


@pytest.mark.parametrize("kind", ["paper", "code"])
def test_all_golden_cases(kind):
    assert len(CASES) == 24
    for case in CASES:
        got = found(linear(case["rank"], kind, case["k_raw"], case["s"]), number(case["x"]))
        errors = {name: close(got[name], number(f"{case['name']}.{kind}64.{name}")) for name in got}
        assert max(errors.values()) < TOLERANCE, (case["name"], errors)
    for name, x in (("s1", "x_s1"), ("sd", "x_sd")):  # B = 0: nothing is added, and gradients are finite
        for rank in (4, 8):
            got = found(linear(rank, kind, 1.0, {"s1": 1.0, "sd": np.sqrt(12)}[name], zero=True), number(x))
            assert not got["delta"].any()
            wanted = number(f"B0.r{rank}.{name}.{kind}64.dB")
            assert close(got["dB"], wanted) < 1e-7  # its s is in fp32


@pytest.mark.parametrize("curvature", [2e-5, 0.25, 1.0, 1000.0])
def test_it_begins_at_the_curvature_and_the_square_root_of_the_inputs(curvature):
    base = DenseLinear(9, 4, bias=False)
    made = HypLoraLinear(base, "a.b", HypLoraConfig(curvature=curvature), KeyedDropout(0.0, 0), torch.device("cpu"))
    assert float(torch.nn.functional.softplus(made.k.double())) + LEAST_K == pytest.approx(curvature, rel=1e-5)
    assert float(made.norm_scale) == 3.0


def test_with_little_curvature_it_is_lora_of_the_scaled_input():
    for name, s in (("s1", 1.0), ("sd", float(np.float32(np.sqrt(12))))):
        lora = number(f"limit.{name}.lora_over_s")
        for place, k in enumerate(NUMBERS["limit.K"]):
            raw = float(np.log(np.expm1(k - 1e-6))) if k < 30 else float(k - 1e-6)
            made = linear(4, "paper", raw, s)
            x = number({"s1": "x_s1", "sd": "x_sd"}[name])
            largest = float((x.norm(dim=-1) / (s * np.sqrt(k))).max())
            if largest > 12:  # held; the golden numbers are without
                continue
            assert close(made.update(x).detach(), number(f"limit.{name}.delta")[place]) < 1e-7
        assert close(made.update(x).detach(), lora) < 1e-5


@pytest.mark.parametrize("reproduce", ["paper", "code"])
def test_numerical_gradients(reproduce):
    made = linear(4, reproduce, 1.0, 1.5)
    x = number("x_s1")[3:].clone().requires_grad_()
    parameters = [made.lora_A, made.lora_B, made.k, made.norm_scale]
    assert torch.autograd.gradcheck(lambda x, *_: made.update(x), (x, *parameters), atol=1e-6)


def test_it_computes_in_fp32_beside_bf16():
    made = linear(4, "paper", 1.0, 1.5).float()
    x = number("x_s1").bfloat16()
    assert torch.equal(made.update(x), made.update(x.float()))
    assert made.base.bfloat16()(x).dtype == made(x).dtype == torch.bfloat16


def test_it_is_saved_loaded_served_and_not_merged(tmp_path):
    base = random_model(tmp_path / "base", "qwen2")
    settings = {"rank": 4, "targets": ["q_proj", "down_proj"], "layers": [1], "learn_curvature": False}
    decoder = load_decoder(str(base))
    before = logits(decoder)
    adapter = inject(decoder, StageConfig(method="hyplora", options=settings).adapter, seed=3)
    assert torch.equal(logits(decoder), before)
    assert [name.rpartition(".")[2] for name in adapter.parameters()] == ["lora_A", "lora_B", "norm_scale"] * 2
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.add_(0.2 * torch.randn_like(parameter))
    found = logits(decoder)
    save_adapter(decoder, tmp_path / "adapter", base=str(base))
    mounted = MountedAdapters(served := load_decoder(str(base)))
    mounted.mount("curved", tmp_path / "adapter")
    with mounted.rows([("curved", 40)]):
        torch.testing.assert_close(logits(served), found, atol=1e-5, rtol=0)
    load_adapter(again := load_decoder(str(base)), tmp_path / "adapter")
    assert torch.equal(logits(again), found)
    assert "not linear" in refused(lambda: merge(base, tmp_path / "adapter", tmp_path / "merged", base="base"))
    assert not (tmp_path / "merged").exists()
    wrong = StageConfig(method="hyplora", options={"layers": [7]}).adapter
    assert "options.layers: layer 7 is not in this model" in refused(lambda: inject(load_decoder(str(base)), wrong))


def test_its_memory_is_planned_with_dropout_too():
    """The meta device has no generator for the masks."""
    found = [
        trace(
            meta_decoder(Scenario(TINY, FP32, HypLoraConfig(rank=2, dropout=rate))), PackShape((30,), 10).pack(61)
        ).peak
        for rate in (0.0, 0.1)
    ]
    assert 0 < found[0] < found[1]


def refused(action):
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)


@torch.no_grad()
def logits(decoder):
    return decoder.logits(decoder(torch.arange(20, 60), torch.arange(40), decoder.packed([0, 40])))
