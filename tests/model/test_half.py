"""Half fine-tuning: which half, what of it is trained, and what is saved."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from random_model import random_model
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM

from cbtrain.model.adapters.half import ATTENTION, MLP, NORMS, draw_frozen
from cbtrain.model.adapters.methods import inject, save_adapter
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import build_pack
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.loss import loss_sum

DRAWS = 2000


@pytest.mark.parametrize("layers", [4, 5])
def test_counts_are_fixed_and_shares_are_even(layers):
    pairs, triples, singles, norms, which = Counter(), Counter(), Counter(), Counter(), Counter()
    for seed in range(DRAWS):
        frozen = draw_frozen(layers, seed, seed % 3)
        two = []
        for layer in range(layers):
            names = {path.rpartition(".")[2] for path in frozen if path.startswith(f"layers.{layer}.")}
            attention, mlp, norm = (names & set(kind) for kind in (ATTENTION, MLP, NORMS))
            assert (len(attention), len(norm)) == (2, 1)
            pairs[frozenset(attention)] += 1
            norms.update(norm)
            (triples if len(mlp) == 2 else singles)[frozenset(mlp)] += 1
            two += [layer] if len(mlp) == 2 else []
        assert len(two) == layers // 2
        which[tuple(two)] += 1
    assert set(pairs) == {frozenset(pair) for pair in combinations(ATTENTION, 2)}
    assert len(which) == len(list(combinations(range(layers), layers // 2)))
    for counts in (pairs, triples, singles, norms, which):
        assert chisquare(list(counts.values())).pvalue > 1e-4
    assert draw_frozen(layers, 0, 0) == draw_frozen(layers, 0, 0) != draw_frozen(layers, 0, 1)


def test_the_other_half_has_no_gradient_no_state_and_the_base_s_values(tmp_path):
    base = random_model(tmp_path / "base", "qwen2")  # biases go with their matrix
    decoder = load_decoder(str(base))
    before = {name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}
    settings = StageConfig(method="half", options={"round": 2}, learning_rate=1e-2)
    adapter = inject(decoder, settings.adapter, seed=1)
    trained = decoder.trainable_parameters()
    assert adapter.frozen == draw_frozen(2, 1, 2)
    assert {name for name in before if name not in trained} == {
        name for name in before if name.rpartition(".")[0] in adapter.frozen
    }
    assert "layers.0.self_attn.q_proj.bias" in before
    weights = torch.ones(30).numpy()
    pack = build_pack([Document("a", torch.arange(20, 50).int().numpy(), weights)])
    engine = TorchEngine(decoder.train(), settings)
    engine.backward(loss_sum(decoder, pack))
    assert all((parameter.grad is not None) == (name in trained) for name, parameter in decoder.named_parameters())
    engine.step(1e-2)
    assert len(engine.optimizer.state) == len(trained)
    for name, parameter in decoder.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in trained), name
    values = {name: parameter.detach() for name, parameter in trained.items()}  # as an engine hands them on
    save_adapter(decoder, tmp_path / "tuned", base=str(base), values=values)
    assert adapter.read(tmp_path / "tuned").keys() == before.keys()
    ids = torch.arange(20, 60)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned", dtype=torch.float32)
    with torch.no_grad():
        found = decoder.eval().logits(decoder(ids, torch.arange(40), decoder.packed([0, 40])))
        torch.testing.assert_close(model(ids[None]).logits[0], found, atol=1e-4, rtol=0)
