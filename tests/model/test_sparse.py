"""Sparse deltas as an adapter: how many weights, where, saved, served, merged, planned, refused."""

import pytest
import torch
from equivalence_worker import decoder as tiny_decoder
from random_model import random_model
from safetensors.torch import load_file, save_file
from tiny_architecture import TINY

from cbtrain.errors import UserError
from cbtrain.model.adapters.merge import merge
from cbtrain.model.adapters.methods import inject, load_adapter, save_adapter
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.method_settings import SparseConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import build_pack
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.loss import loss_sum
from cbtrain.training.planning.meta_model import meta_decoder
from cbtrain.training.planning.scenario import Scenario
from cbtrain.training.planning.static_memory import predict_static_memory

FP32 = WeightFormat("fp32", torch.float32)
TARGETS = ["q_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("models") / "base", "qwen2")  # with biases


def changed(decoder, **settings):
    """Give ``decoder`` sparse deltas with values; return its adapter."""
    adapter = inject(decoder, StageConfig(method="sparse", options={"targets": TARGETS, **settings}).adapter, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapter


@torch.no_grad()
def logits(decoder):
    return decoder.logits(decoder(torch.arange(20, 60), torch.arange(40), decoder.packed([0, 40])))


def test_as_many_weights_as_lora_shared_out_by_size(base):
    decoder = load_decoder(str(base))
    before = logits(decoder)
    adapter = inject(decoder, SparseConfig(rank=4, targets=TARGETS), seed=3)
    assert torch.equal(logits(decoder), before)
    sizes = {path: one.shape[0] * one.shape[1] for path, one in adapter.modules.items()}
    assert sorted(sizes.values()) == [32 * 32] * 2 + [32 * 48] * 2
    wanted = 2 * 4 * (32 + 32) + 2 * 4 * (32 + 48)
    for path, module in adapter.modules.items():
        places = module.indices
        assert len(places) == len(module.values) == int(wanted * sizes[path] / sum(sizes.values()))
        assert places.dtype == torch.int32
        assert len(places.unique()) == len(places)
        assert int(places.min()) >= 0
        assert int(places.max()) < sizes[path]
        assert torch.equal(places, places.sort().values)
    same, other = (inject(load_decoder(str(base)), adapter.config, seed=seed) for seed in (3, 4))
    drawn = [{path: one.indices.tolist() for path, one in made.modules.items()} for made in (adapter, same, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    few = inject(load_decoder(str(base)), SparseConfig(parameters=2), seed=0)
    assert {len(module.values) for module in few.modules.values()} == {1}


def test_places_are_drawn_evenly(base):
    counts = torch.zeros(32 * 32)
    adapter = inject(load_decoder(str(base)), SparseConfig(targets=["q_proj"], layers=[0], parameters=256), seed=0)
    (module,) = adapter.modules.values()
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        module.initialize(generator)
        counts[module.indices.long()] += 1
    expected = 400 * 256 / 1024
    assert float((counts - expected).square().sum() / (expected * 0.75)) < 1024 + 5 * (2 * 1024) ** 0.5


@pytest.mark.parametrize("reproduce", ["none", "spiel"])
def test_it_is_saved_loaded_served_and_merged(base, tmp_path, reproduce):
    adapter = changed(decoder := load_decoder(str(base)), reproduce=reproduce, selection="momentum")
    found = logits(decoder.eval())
    with decoder.with_adapter(False):
        assert torch.equal(logits(decoder), logits(load_decoder(str(base))))
    save_adapter(decoder, tmp_path / "adapter", base=str(base))
    files = load_file(tmp_path / "adapter" / "adapter.safetensors")
    assert {name.rpartition(".")[2]: tensor.dtype for name, tensor in files.items()} == {
        "indices": torch.int32,
        "values": torch.float32,
    }
    mounted = MountedAdapters(served := load_decoder(str(base)))
    digest = mounted.mount("sparse", tmp_path / "adapter")
    with mounted.rows([("sparse", 40)]):
        torch.testing.assert_close(logits(served), found, atol=1e-5, rtol=0)
    load_adapter(again := load_decoder(str(base)), tmp_path / "adapter")
    assert torch.equal(logits(again), found)
    assert merge(base, tmp_path / "adapter", tmp_path / "merged", base="base") == 4
    torch.testing.assert_close(logits(load_decoder(str(tmp_path / "merged"))), found, atol=1e-5, rtol=0)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    for path, module in adapter.modules.items():
        weight = module.base.weight.detach().flatten().clone()
        weight[module.indices.long()] += module.values.detach()
        assert torch.equal(merged[f"model.{path}.weight"].flatten(), weight)  # to the last bit
    with torch.no_grad():
        for module in adapter.modules.values():  # other places are another adapter
            module.indices.copy_(torch.arange(len(module.indices)))
    save_adapter(decoder, tmp_path / "moved", base=str(base))
    assert mounted.mount("moved", tmp_path / "moved") != digest


@pytest.mark.parametrize("weights", ["fp32", "bf16", "nf4"])
def test_each_format_of_weights_trains_and_computes_the_same_with_few_rows(weights):
    if weights == "nf4":
        pytest.importorskip("bitsandbytes")
    decoder = tiny_decoder({"rank": 4, "selection": "accumulated-gradients", "collect": 2}, weights=weights)
    engine = TorchEngine(decoder, StageConfig())
    document = Document("a", torch.arange(1, 41).int().numpy(), torch.ones(40).numpy())
    losses = []
    for step in range(12):
        loss = loss_sum(decoder, build_pack([document])) / 39
        losses.append(loss.item())
        engine.backward(loss)
        engine.step(3e-2)
        engine.advance(step / 12)
    assert losses[-1] < losses[0] - 0.2
    module = decoder.adapter.modules["layers.0.mlp.up_proj"]
    x = torch.randn(40, 24, dtype=decoder.dtype)
    exact = x.float() @ module.effective_weight(module.base.dequantized()).T
    tolerance = 2e-2 if weights == "bf16" else 1e-5
    for few in (x[:3], x):
        for training in (True, False):
            found = module.train(training)(few)
            assert found.dtype == decoder.dtype
            torch.testing.assert_close(found.float(), exact[: len(few)], atol=tolerance, rtol=tolerance)


def test_numerical_gradients():
    module = tiny_decoder({"rank": 1}).adapter.modules["layers.0.mlp.up_proj"].double()
    for folded in (True, False):
        x = torch.randn(5, 24, dtype=torch.float64, requires_grad=True)
        way = module if folded else module.update
        assert torch.autograd.gradcheck(lambda x, values, way=way: way(x), (x, module.values))


def test_its_memory_is_planned(base):
    """What is remembered for a selection counts, and as many bytes as there will be."""
    for selection in ("none", "accumulated-gradients", "momentum"):
        config = SparseConfig(rank=2, selection=selection)
        planned = predict_static_memory(
            decoder := meta_decoder(Scenario(TINY, FP32, config)), Scenario(TINY, FP32, config)
        )
        real = tiny_decoder(config.model_dump())
        engine = TorchEngine(real, StageConfig())
        document = Document("a", torch.arange(1, 41).int().numpy(), torch.ones(40).numpy())
        engine.backward(loss_sum(real, build_pack([document])) / 39)
        engine.step(1e-3)
        held = engine.static_memory()
        assert (planned.adapters, planned.gradients) == (held.adapters, held.gradients)
        # Two sums of the packs since the last update are there during a step only; counters are small.
        during = 8 * sum(len(one.values) for one in real.adapter.modules.values()) * (selection[0] == "a")
        assert planned.optimizer == pytest.approx(held.optimizer + during, abs=40 * len(decoder.adapter.modules))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rank": 40}, "options.rank: 11,520 weights are to be trained, and the targets have 5,120"),
        ({"parameters": 9000}, "options.parameters: 9,000 weights are to be trained"),
        ({"layers": [7]}, "options.layers: layer 7 is not in this model"),
    ],
)
def test_settings_that_do_not_fit_the_model(base, options, problem):
    assert problem in refused(lambda: changed(load_decoder(str(base)), **options))


def test_settings_that_fit_no_model():
    for options, problem in (
        ({"collect": 20}, "collect 20 must be less than every 20"),
        ({"selection": "random"}, "selection"),
        ({"faults": ["all"]}, "faults"),
        ({"targets": ["qproj"]}, "targets"),
    ):
        with pytest.raises(ValueError, match=problem):
            StageConfig(method="sparse", options=options)
    with pytest.raises(ValueError, match="brings an optimizer of its own"):
        StageConfig(method="sparse", options={"selection": "momentum"}, optimizer="sgd")


def test_damaged_places_are_refused(base, tmp_path):
    changed(decoder := load_decoder(str(base)))
    save_adapter(decoder, tmp_path / "adapter", base=str(base))
    file = tmp_path / "adapter" / "adapter.safetensors"
    good, name = load_file(file), "layers.0.mlp.down_proj.indices"
    beyond, twice = good[name].clone(), good[name].clone()
    beyond[0], twice[0] = 32 * 48, twice[1]
    for bad, problem in (
        (beyond, "names places outside of a weight with 1,536"),
        (twice, "names a place twice"),
        (good[name].long(), "is stored as int64, not int32"),
        (good[name][1:], "has shape"),
        (None, "is missing"),
    ):
        save_file({key: value for key, value in {**good, name: bad}.items() if value is not None}, file)
        assert problem in refused(lambda: load_adapter(load_decoder(str(base)), tmp_path / "adapter"))


def refused(action):
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)
