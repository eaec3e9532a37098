"""Dropout belongs to documents: neither the pack, nor its place there, nor the rest of the batch changes a mask."""

import pytest
import torch
from adapter_values import lora_modules
from batches import micro_batches
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from random_model import random_model
from transformers import AutoModelForCausalLM

from cbtrain.model.adapters.dropout import KeyedDropout
from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import build_pack
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.step import train_step

CONFIG = LoraConfig(rank=4, alpha=8, dropout=0.4)


def documents(seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for name, length in (("a", 30), ("b", 1), ("c", 17), ("d", 25)):
        ids = torch.randint(0, 300, (length,), generator=generator).to(torch.int32).numpy()
        made.append(Document(name, ids, torch.ones(length).numpy()))
    return made


@pytest.fixture
def base(tmp_path):
    return random_model(tmp_path / "base", "llama")


def gradients(base, packs, *, seed=3, step=7, config=CONFIG):
    decoder = load_decoder(str(base)).train()
    inject(decoder, config, seed=seed)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in lora_modules(decoder).values():
            module.lora_B.copy_(torch.randn(module.lora_B.shape, generator=generator) * 0.3)

    class Kept(TorchEngine):
        def step(self, learning_rate):
            self.kept = torch.cat([p.grad.flatten() for p in self.live.values()])
            return super().step(0.0)

    engine = Kept(decoder, StageConfig())
    result = train_step(decoder, engine, micro_batches([build_pack(pack) for pack in packs]), 0.0, step=step)
    return result.loss, engine.kept


def error(one, other):
    return (one - other).norm() / other.norm()


def test_a_step_is_the_same_however_its_documents_are_packed(base):
    a, b, c, d = documents()
    loss, expected = gradients(base, [[a, b, c, d]])
    for packs in ([[d, c, b, a]], [[a], [b], [c], [d]], [[c, a], [d, b]]):
        other, kept = gradients(base, packs)
        assert error(kept, expected) < 1e-5
        assert other == pytest.approx(loss, rel=1e-5)
    for changed in ({"seed": 4}, {"step": 8}, {"config": LoraConfig(rank=4, alpha=8)}):
        assert error(gradients(base, [[a, b, c, d]], **changed)[1], expected) > 0.05


def test_masks_differ_by_everything_that_keys_them_and_keep_the_mean():
    def mask(seed=0, step=0, name="a", place="layers.0.mlp.up_proj"):
        dropout = KeyedDropout(0.25, seed)
        dropout.prepare(step, [name], [0, 200])
        return dropout(torch.ones(200, 300), place)

    first = mask()
    assert torch.equal(first, mask())
    assert first.unique().tolist() == pytest.approx([0, 4 / 3])
    assert first.mean().item() == pytest.approx(1, abs=0.01)
    for changed in ({"seed": 1}, {"step": 1}, {"name": "b"}, {"place": "layers.1.mlp.up_proj"}):
        other = mask(**changed)
        assert ((first == 0) & (other == 0)).float().mean().item() == pytest.approx(0.0625, abs=0.01)


def test_rows_of_unknown_documents_are_a_defect():
    dropout = KeyedDropout(0.25, 0)
    with pytest.raises(RuntimeError, match="call adapter.prepare"):
        dropout(torch.ones(3, 4), "x")
    dropout.prepare(0, ["a"], [0, 4])
    with pytest.raises(RuntimeError, match="call adapter.prepare"):
        dropout(torch.ones(3, 4), "x")
    assert KeyedDropout(0.0, 0)(torch.ones(3, 4), "x").sum() == 12


@pytest.mark.parametrize("dora", [False, True])
def test_dropout_stands_where_peft_has_it(base, dora):
    """``peft`` with our masks put in for its own computes the same."""
    ids = torch.arange(40)
    decoder = load_decoder(str(base)).train()
    adapter = inject(decoder, LoraConfig(rank=4, alpha=8, dropout=0.4, dora=dora))
    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = PeftLoraConfig(r=4, lora_alpha=8, lora_dropout=0.4, use_dora=dora, target_modules=CONFIG.targets)
    model = get_peft_model(reference, settings).train()

    class Ours(torch.nn.Module):
        def __init__(self, place):
            super().__init__()
            self.place = place

        def forward(self, x):
            return adapter.dropout(x[0], self.place)[None]

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for path, module in lora_modules(decoder).items():
            module.lora_B.copy_(torch.randn(module.lora_B.shape, generator=generator) * 0.3)
            theirs = model.get_submodule(f"base_model.model.model.{path}")
            theirs.lora_A.default.weight.copy_(module.lora_A)
            theirs.lora_B.default.weight.copy_(module.lora_B)
            theirs.lora_dropout["default"] = Ours(path)
    adapter.prepare(2, ["a"], [0, 40])
    ours = decoder.logits(decoder(ids, ids, decoder.packed([0, 40])))
    torch.testing.assert_close(ours, model(ids[None]).logits[0], atol=1e-4, rtol=0)
    decoder.eval()
    adapter.prepare(0, [], [0])  # nothing is drawn any more
    assert not torch.allclose(ours, decoder.logits(decoder(ids, ids, decoder.packed([0, 40]))), atol=1e-2)
