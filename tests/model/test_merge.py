"""A merged model opens in ``transformers`` and says what base and adapter say together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_model import random_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cbtrain.errors import UserError
from cbtrain.model.adapters.lora import inject, lora_modules
from cbtrain.model.adapters.merge import merge
from cbtrain.model.adapters.peft_format import save_adapter
from cbtrain.model.config import LoraConfig
from cbtrain.model.decoder import PackedAttention
from cbtrain.model.weights import load_decoder
from cbtrain.tokens.formats import choose_format, format_files
from cbtrain.tokens.tokenizer import load_tokenizer

CBTRAIN = Path(sys.executable).with_name("cbtrain")
IDS = torch.arange(60).remainder(300)


@pytest.fixture
def made(tmp_path):
    """A base in several shards, an adapter of some of its linears, and their logits together."""
    single = random_model(tmp_path / "single", "llama")
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(single, dtype=torch.float32).save_pretrained(base, max_shard_size="30KB")
    tokenizer = AutoTokenizer.from_pretrained(single)
    tokenizer.save_pretrained(base)
    decoder = load_decoder(str(base))
    config = LoraConfig(rank=3, alpha=5, targets=["q_proj", "v_proj", "down_proj"])
    inject(decoder, config)
    generator = torch.Generator().manual_seed(1)
    for module in lora_modules(decoder).values():
        module.lora_B.data.copy_(torch.randn(module.lora_B.shape, generator=generator) * 0.3)
    beside = format_files(choose_format(load_tokenizer(base), "plain"))
    save_adapter(decoder, tmp_path / "adapter", config, base=str(base), facts={}, beside=beside)
    hidden = decoder(IDS, torch.arange(60), PackedAttention([0, 60], decoder.architecture))
    return base, tmp_path / "adapter", decoder.logits(hidden).detach()


def test_logits_template_and_card(made, tmp_path):
    base, adapter, expected = made
    assert len(list(base.glob("model-*.safetensors"))) > 2
    command = [CBTRAIN, "merge", "--model", base, "--adapter", adapter, "--out", tmp_path / "merged"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 matrices changed" in done.stdout
    merged = tmp_path / "merged"
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    torch.testing.assert_close(model(IDS[None]).logits[0].detach(), expected, atol=1e-4, rtol=0)
    assert sorted(p.name for p in merged.glob("*.safetensors")) == sorted(p.name for p in base.glob("*.safetensors"))
    # The layout of training, not the base's.
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi."}], tokenize=False).endswith(
        "Patient: Hi.<|end|>\n"
    )
    card = (merged / "README.md").read_text()
    assert "never" in card or "no evidence" in card
    assert f"base_model: {base}" in card
    assert "End answers at" in card
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)


def test_weights_keep_their_dtype_and_are_rounded_once(made, tmp_path):
    base, adapter, _ = made
    for file in base.glob("*.safetensors"):
        save_file({k: t.to(torch.bfloat16) for k, t in load_file(file).items()}, file, metadata={"format": "pt"})
    merge(base, adapter, tmp_path / "merged", base="b")
    before, after = (
        {k: t for f in d.glob("*.safetensors") for k, t in load_file(f).items()} for d in (base, tmp_path / "merged")
    )
    update = load_file(adapter / "adapter_model.safetensors")
    key = "layers.0.self_attn.q_proj"
    product = (
        update[f"base_model.model.model.{key}.lora_B.weight"] @ update[f"base_model.model.model.{key}.lora_A.weight"]
    )
    expected = (before[f"model.{key}.weight"].float() + 5 / 3 * product).to(torch.bfloat16)
    assert torch.equal(after[f"model.{key}.weight"], expected)
    assert all(
        torch.equal(before[k], after[k]) for k in before if "q_proj" not in k and "v_proj" not in k and "down" not in k
    )


def test_what_cannot_be_merged_leaves_nothing(made, tmp_path):
    base, adapter, _ = made
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    stray = {**tensors, "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(3, 32)}
    save_file(stray, file)
    with pytest.raises(UserError, match=r"layers\.9.*has no place in this model"):
        merge(base, adapter, tmp_path / "out", base="b")
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({**tensors, key: torch.ones(3, 16)}, file)
    with pytest.raises(UserError, match=r"the update of 'model\.layers\.0.*is 32 × 16, it is \(32, 32\)"):
        merge(base, adapter, tmp_path / "out", base="b")
    save_file({**tensors, key: tensors[key] * float("inf")}, file)
    with pytest.raises(UserError, match="is not finite any more"):
        merge(base, adapter, tmp_path / "out", base="b")
    save_file(tensors, file)
    next(base.glob("model-00002*")).write_bytes(b"x")
    with pytest.raises(UserError, match="damaged safetensors file"):
        merge(base, adapter, tmp_path / "out", base="b")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "use_dora": True}))
    with pytest.raises(UserError, match="use_dora"):
        merge(base, adapter, tmp_path / "out", base="b")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
