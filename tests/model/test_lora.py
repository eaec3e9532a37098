"""LoRA against ``peft``: logits, gradients, and files in both directions."""

import itertools
import json
import shutil

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from cbtrain.errors import UserError
from cbtrain.model.adapters.lora import adapter_enabled, inject, lora_modules
from cbtrain.model.adapters.peft_format import load_adapter, save_adapter
from cbtrain.model.config import LORA_TARGETS, LoraConfig
from cbtrain.model.decoder import PackedAttention
from cbtrain.model.weights import load_decoder

CONFIG = LoraConfig(rank=4, alpha=6.0)
IDS = torch.randint(0, 97, (40,), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    FAMILIES["llama"]().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def logits(decoder):
    return decoder.logits(decoder(IDS, torch.arange(40), PackedAttention([0, 40], decoder.architecture)))


def randomize(decoder):
    generator = torch.Generator().manual_seed(1)
    for module in lora_modules(decoder).values():
        module.lora_B.data.copy_(torch.randn(module.lora_B.shape, generator=generator) * 0.3)


def test_adapter_covers_all_seven_linears_and_starts_from_the_base(base):
    decoder = load_decoder(str(base))
    before = logits(decoder)
    parameters = inject(decoder, CONFIG)
    assert len(lora_modules(decoder)) == 2 * len(LORA_TARGETS)
    assert len(parameters) == 4 * len(LORA_TARGETS)
    torch.testing.assert_close(logits(decoder), before, atol=0, rtol=0)
    randomize(decoder)
    assert not torch.allclose(logits(decoder), before, atol=1e-2)
    with adapter_enabled(decoder, False):
        torch.testing.assert_close(logits(decoder), before, atol=0, rtol=0)


SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
FAMILIES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "mistral-window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=9)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=12)),
}


@pytest.mark.parametrize("documents", [[40], [11, 1, 28]], ids=["unpacked", "packed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_what_we_save_with_equal_logits_and_gradients(family, documents, tmp_path):
    torch.manual_seed(0)
    base = tmp_path / "base"
    FAMILIES[family]().save_pretrained(base)
    decoder = load_decoder(str(base))
    inject(decoder, CONFIG)
    randomize(decoder)
    save_adapter(decoder, tmp_path / "adapter", CONFIG, base=str(base), facts={})
    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(reference, tmp_path / "adapter", is_trainable=True)
    # The oracle sees one document at a time, ours all of them in one row.
    theirs = torch.cat([model(part[None]).logits[0] for part in IDS.split(documents)])
    borders = [0, *itertools.accumulate(documents)]
    positions = torch.cat([torch.arange(length) for length in documents])
    ours = decoder.logits(decoder(IDS, positions, PackedAttention(borders, decoder.architecture)))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)

    theirs.logsumexp(-1).sum().backward()
    ours.logsumexp(-1).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, module in lora_modules(decoder).items():
        for leaf in ("lora_A", "lora_B"):
            expected = gradients[f"base_model.model.model.{name}.{leaf}.default.weight"]
            error = (getattr(module, leaf).grad - expected).norm() / expected.norm()
            assert error < 1e-5, (name, leaf)


def test_we_load_what_peft_saves(base, tmp_path):
    torch.manual_seed(2)
    config = PeftLoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    model.save_pretrained(tmp_path / "adapter")
    decoder = load_decoder(str(base))
    loaded = load_adapter(decoder, tmp_path / "adapter")
    assert (loaded.rank, loaded.alpha, loaded.targets) == (3, 5, ["down_proj", "q_proj"])
    torch.testing.assert_close(logits(decoder), model(IDS[None]).logits[0], atol=1e-4, rtol=0)


def test_bad_adapters_are_refused(base, tmp_path):
    decoder = load_decoder(str(base))
    with pytest.raises(ValueError, match="'q_pro'.*'q_proj'"):
        LoraConfig(targets=["q_pro"])
    with pytest.raises(UserError, match=r"adapter_config\.json: adapter file is missing"):
        load_adapter(decoder, tmp_path)
    inject(decoder, CONFIG)
    with pytest.raises(UserError, match="already has an adapter"):
        inject(decoder, CONFIG)
    save_adapter(decoder, tmp_path / "a", CONFIG, base="x", facts={})
    described = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    for change, problem in [
        ({"target_modules": "all-linear"}, "not a list"),
        ({"target_modules": ["lm_head"]}, "unknown target 'lm_head'"),
        ({"r": None}, "rank: "),
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ]:
        shutil.copytree(tmp_path / "a", tmp_path / "changed", dirs_exist_ok=True)
        (tmp_path / "changed" / "adapter_config.json").write_text(json.dumps(described | change))
        with pytest.raises(UserError, match=problem):
            load_adapter(load_decoder(str(base)), tmp_path / "changed")
    other = LlamaForCausalLM(
        LlamaConfig(vocab_size=97, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    )
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="another base model"):
        load_adapter(load_decoder(str(tmp_path / "other")), tmp_path / "a")
