"""A merged model opens in ``transformers`` and says what base and adapter say together."""

import json

import pytest
import torch
from adapter_values import lora_modules, randomize
from command import cbtrain
from random_model import random_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from cbtrain.errors import UserError
from cbtrain.generation.config import EngineConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.model.adapters.merge import MergeOptions, merge
from cbtrain.model.adapters.methods import inject, save_adapter
from cbtrain.model.architecture import read_architecture
from cbtrain.model.config import LoraConfig
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.chat_files import format_files
from cbtrain.tokens.formats import choose_format
from cbtrain.tokens.tokenizer import load_tokenizer

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
    beside = format_files(choose_format(load_tokenizer(base), "plain"), [5])
    save_adapter(decoder, tmp_path / "adapter", base=str(base), extra_files=beside)
    hidden = decoder(IDS, torch.arange(60), decoder.packed([0, 60]))
    return base, tmp_path / "adapter", decoder.logits(hidden).detach()


def test_logits_template_and_card(made, tmp_path):
    base, adapter, expected = made
    assert len(list(base.glob("model-*.safetensors"))) > 2
    command = ["merge", "--model", base, "--adapter", adapter, "--out", tmp_path / "merged"]
    done = cbtrain(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 matrices changed" in done.stdout
    merged = tmp_path / "merged"
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    torch.testing.assert_close(model(IDS[None]).logits[0].detach(), expected, atol=1e-4, rtol=0)
    assert [p.name for p in merged.glob("*.safetensors*")] == ["model.safetensors"]  # no index of the base's five files
    recorded = json.loads((merged / "cbtrain.json").read_text())["merged"]
    assert recorded == {
        "base": str(base),
        "base_fingerprint": load_decoder(str(base)).fingerprint,
        "into": "original",
        "adapter": "adapter",
        "base_weights_in_training": "fp32",
    }
    # The layout of training, not the base's.
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi."}], tokenize=False).endswith(
        "Patient: Hi.<|end|>\n"
    )
    card = (merged / "README.md").read_text()
    assert "never" in card or "no evidence" in card
    assert "base_model: base\n" in card
    assert str(tmp_path) not in card
    assert "End answers at" in card
    # A merged folder alone is laid out and stopped as base and adapter together.
    alone = LocalModel(str(merged), {}, EngineConfig(slots=1, context_tokens=128)).voice.renderer.format
    beside = LocalModel(str(base), {"a": adapter}, EngineConfig(slots=1, context_tokens=128)).voice.renderer.format
    assert (alone.template, alone.stop_strings) == (beside.template, beside.stop_strings)
    assert alone.stop_strings
    assert GenerationConfig.from_pretrained(merged).eos_token_id == [5, 2]
    again = cbtrain(*command, cwd=tmp_path)
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


@pytest.mark.fault("B6")
@pytest.mark.parametrize("command", ["merge", "model"])
def test_a_base_that_calls_itself_quantized_is_refused_by_every_command(made, tmp_path, command):
    base, adapter, _ = made
    config = json.loads((base / "config.json").read_text())
    quantized = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": quantized}))
    arguments = ["--model", base, "--adapter", adapter, "--out", tmp_path / "merged"] if command == "merge" else [base]
    done = cbtrain(command, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "config.json: its weights are already quantized (bitsandbytes)" in done.stderr
    assert not (tmp_path / "merged").exists()
    with pytest.raises(UserError, match="already quantized"):  # what plans and trainings read first
        read_architecture(base)


def test_what_cannot_be_merged_leaves_nothing(made, tmp_path):
    base, adapter, _ = made
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    stray = {**tensors, "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(3, 32)}
    save_file(stray, file)
    with pytest.raises(UserError, match=r"layers\.9.*does not belong to this model"):
        merge(base, adapter, tmp_path / "out", base="b")
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({**tensors, key: torch.ones(3, 16)}, file)
    with pytest.raises(UserError, match=r"layers\.0.*lora_A\.weight' has shape \(3, 16\); shape \(3, 32\) is needed"):
        merge(base, adapter, tmp_path / "out", base="b")
    save_file({**tensors, key: tensors[key] * float("inf")}, file)
    with pytest.raises(UserError, match="holds NaN or infinity"):
        merge(base, adapter, tmp_path / "out", base="b")
    save_file(tensors, file)
    next(base.glob("model-00002*")).write_bytes(b"x")
    with pytest.raises(UserError, match="damaged safetensors file"):
        merge(base, adapter, tmp_path / "out", base="b")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_an_adapter_of_another_base_is_not_merged_unless_forced(made, tmp_path):
    _, adapter, _ = made
    sister = random_model(tmp_path / "sister", "llama")
    tensors = load_file(sister / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, sister / "model.safetensors")
    with pytest.raises(UserError, match="another base model"):
        merge(sister, adapter, tmp_path / "out", base="b")
    assert not (tmp_path / "out").exists()
    merge(sister, adapter, tmp_path / "forced", base="b", options=MergeOptions(force=True))
    recorded = json.loads((tmp_path / "forced" / "cbtrain.json").read_text())["merged"]
    assert recorded["forced_from_base_fingerprint"] != recorded["base_fingerprint"]


def adapted(base, out, config, **load):
    """An adapter with random values, saved; logits of base and adapter together."""
    decoder = load_decoder(str(base), **load)
    inject(decoder, config)
    randomize(decoder)
    save_adapter(decoder, out, base=str(base))
    with torch.no_grad():
        return decoder.logits(decoder(IDS, torch.arange(60), decoder.packed([0, 60])))


MERGED = {
    "rslora": LoraConfig(rank=3, rslora=True),
    "dora": LoraConfig(rank=3, dora=True),
    "patterns": LoraConfig(rank=3, rank_pattern={"q_proj": 5}, alpha_pattern={"v_proj": 7}, layers=[1]),
    "embeddings": LoraConfig(rank=3, modules_to_save=["embed_tokens"]),
    "head": LoraConfig(rank=3, modules_to_save=["lm_head"]),
    "not-kept-tied": LoraConfig(rank=3, modules_to_save=["embed_tokens"], ensure_weight_tying=False),
    "head-not-kept-tied": LoraConfig(rank=3, modules_to_save=["lm_head"], ensure_weight_tying=False),
}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("method", MERGED)
def test_every_method_merges(method, tied, tmp_path, monkeypatch):
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=tied))
    model.save_pretrained(tmp_path / "base")
    expected = adapted(tmp_path / "base", tmp_path / "adapter", MERGED[method])
    monkeypatch.setattr("cbtrain.model.adapters.merge.SHARD_BYTES", 30_000)
    merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out", base="b")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    torch.testing.assert_close(merged(IDS[None]).logits[0].detach(), expected, atol=1e-4, rtol=0)
    assert merged.config.tie_word_embeddings == (tied and "not-kept-tied" not in method)


@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
def test_an_adapter_of_nf4_weights_needs_a_choice_which_is_recorded(double, tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).save_pretrained(tmp_path / "base")
    weight_format = WeightFormat("nf4", torch.float32, double)
    config = LoraConfig(rank=3, targets=["q_proj"])
    expected = adapted(tmp_path / "base", tmp_path / "adapter", config, weights=weight_format)
    command = ["merge", "--model", tmp_path / "base", "--adapter", tmp_path / "adapter", "--out"]
    refused = cbtrain(*command, tmp_path / "out", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "trained on NF4 weights. Choose --into original" in refused.stderr
    logits = {}
    for into in ("original", "dequantized"):
        done = cbtrain(*command, tmp_path / into, "--into", into, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        recorded = json.loads((tmp_path / into / "cbtrain.json").read_text())["merged"]
        assert (recorded["into"], recorded["base_weights_in_training"]) == (into, str(weight_format))
        assert ("after NF4 quantization" in (tmp_path / into / "README.md").read_text()) == (into == "dequantized")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / into, dtype=torch.float32)
        logits[into] = model(IDS[None]).logits[0].detach()
    torch.testing.assert_close(logits["dequantized"], expected, atol=1e-4, rtol=0)
    assert not torch.allclose(logits["original"], expected, atol=1e-2)


def test_old_exporters_frequencies_are_no_other_base(made, tmp_path):
    base, adapter, _ = made
    file = next(base.glob("model-00002*"))
    save_file({**load_file(file), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, file)
    assert merge(base, adapter, tmp_path / "out", base="b") == 6
    assert load_decoder(str(tmp_path / "out")).fingerprint


def test_rows_of_zeros_merge(tmp_path):
    base = random_model(tmp_path / "base", "llama")
    file = base / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.mlp.up_proj.weight"][3] = 0
    save_file(tensors, file)
    decoder = load_decoder(str(base))
    inject(decoder, LoraConfig(rank=2, dora=True))
    save_adapter(decoder, tmp_path / "adapter", base=str(base))
    merge(base, tmp_path / "adapter", tmp_path / "out", base="b")
    assert not load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"][3].any()


def test_dequantized_is_for_adapters_of_nf4_weights(made, tmp_path):
    base, adapter, _ = made
    with pytest.raises(UserError, match="was not trained on NF4 weights"):
        merge(base, adapter, tmp_path / "out", base="b", options=MergeOptions(into="dequantized"))
