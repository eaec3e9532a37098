"""LoRA against ``peft``: logits, gradients, and files in both directions."""

import dataclasses
import itertools
import json
import re
import shutil

import pytest
import torch
from adapter_values import lora_modules, randomize
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
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
from cbtrain.model.adapters.methods import inject, load_adapter, save_adapter
from cbtrain.model.config import LORA_TARGETS, LoraConfig
from cbtrain.model.path_patterns import matches
from cbtrain.model.weights.loading import load_decoder

CONFIG = LoraConfig(rank=4, alpha=6.0)
IDS = torch.randint(0, 97, (40,), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    FAMILIES["llama"]().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def logits(decoder):
    return decoder.logits(decoder(IDS, torch.arange(40), decoder.packed([0, 40])))


def test_adapter_covers_all_seven_linears_and_starts_from_the_base(base):
    decoder = load_decoder(str(base))
    before = logits(decoder)
    parameters = inject(decoder, CONFIG).parameters()
    assert len(lora_modules(decoder)) == 2 * len(LORA_TARGETS)
    assert len(parameters) == 4 * len(LORA_TARGETS)
    torch.testing.assert_close(logits(decoder), before, atol=0, rtol=0)
    randomize(decoder)
    assert not torch.allclose(logits(decoder), before, atol=1e-2)
    with decoder.with_adapter(False):
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


METHODS = {
    "lora": LoraConfig(rank=4, alpha=6.0),
    "rslora": LoraConfig(rank=4, alpha=6.0, rslora=True),
    "dora": LoraConfig(rank=4, alpha=6.0, dora=True),
    "dora-rslora": LoraConfig(rank=4, alpha=6.0, dora=True, rslora=True),
    "some-linears": LoraConfig(rank=3, alpha=5, targets=["v_proj", "layers.1.mlp.up_proj"]),
    "some-layers": LoraConfig(rank=3, alpha=5, layers=[1]),
    "patterns": LoraConfig(
        rank=4,
        alpha=6,
        rslora=True,
        rank_pattern={r"layers\.0\..*q_proj": 2, "down_proj": 6},
        alpha_pattern={"v_proj": 11, r"layers\.1\.mlp\.up_proj": 2.5},
    ),
    "embeddings": LoraConfig(rank=4, alpha=6, modules_to_save=["embed_tokens"]),
    "head": LoraConfig(rank=4, alpha=6, modules_to_save=["lm_head"]),
    "both": LoraConfig(rank=4, alpha=6, modules_to_save=["embed_tokens", "lm_head"], dora=True),
    "not-kept-tied": LoraConfig(rank=4, alpha=6, modules_to_save=["embed_tokens"], ensure_weight_tying=False),
}


def their_name(name, parameters):
    """The name of our parameter ``name`` in a PEFT model."""
    path, leaf = next(
        (name.removesuffix(f".{end}"), end)
        for end in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "weight")
        if name.endswith(f".{end}")
    )
    stem = f"base_model.model.{path}" if path == "lm_head" else f"base_model.model.model.{path}"
    kinds = {
        "weight": "modules_to_save.default.weight",
        "lora_magnitude_vector": "lora_magnitude_vector.default.weight",
    }
    found = f"{stem}.{kinds.get(leaf, leaf.replace('.weight', '.default.weight'))}"
    assert found in parameters, found
    return found


def compare_with_peft(base, adapter, decoder, documents):
    """Equal logits and gradients, ``documents`` packed in one row here and one at a time there."""
    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(reference, adapter, is_trainable=True)
    theirs = torch.cat([model(part[None]).logits[0] for part in IDS.split(documents)])
    cu_seqlens = [0, *itertools.accumulate(documents)]
    positions = torch.cat([torch.arange(length) for length in documents])
    ours = decoder.logits(decoder(IDS, positions, decoder.packed(cu_seqlens)))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)

    theirs.logsumexp(-1).sum().backward()
    ours.logsumexp(-1).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    seen = set()
    for name, parameter in decoder.adapter.parameters().items():
        theirs_name = their_name(name, gradients)
        expected = gradients[theirs_name]
        assert (parameter.grad - expected).norm() / expected.norm() < 2e-5, name
        seen.add(theirs_name)
    assert seen == set(gradients)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("documents", [[40], [11, 1, 28]], ids=["unpacked", "packed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_what_we_save_with_equal_logits_and_gradients(family, documents, seed, tmp_path):
    torch.manual_seed(seed)
    base = tmp_path / "base"
    FAMILIES[family]().save_pretrained(base)
    decoder = load_decoder(str(base))
    inject(decoder, CONFIG)
    randomize(decoder)
    save_adapter(decoder, tmp_path / "adapter", base=str(base))
    compare_with_peft(base, tmp_path / "adapter", decoder, documents)


@pytest.mark.parametrize("documents", [[40], [11, 1, 28]], ids=["unpacked", "packed"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_equals_peft_and_comes_back(method, tied, documents, tmp_path):
    torch.manual_seed(0)
    base = tmp_path / "base"
    LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied, attention_bias=True)).save_pretrained(base)
    decoder = load_decoder(str(base))
    with torch.no_grad():
        before = logits(decoder)
    adapter = inject(decoder, METHODS[method])
    torch.testing.assert_close(logits(decoder), before, atol=1e-5, rtol=0)  # training starts from the base
    randomize(decoder)
    assert not torch.allclose(logits(decoder), before, atol=1e-2)
    with decoder.with_adapter(False):
        torch.testing.assert_close(logits(decoder), before, atol=0, rtol=0)
    save_adapter(decoder, tmp_path / "adapter", base=str(base))
    again = load_decoder(str(base))
    loaded = load_adapter(again, tmp_path / "adapter")
    together = tied and adapter.config.modules_to_save and adapter.config.ensure_weight_tying
    assert loaded.config.model_dump(exclude={"targets", "modules_to_save", "ensure_weight_tying"}) == (
        adapter.config.model_dump(exclude={"targets", "modules_to_save", "ensure_weight_tying"})
    )
    assert loaded.config.ensure_weight_tying == bool(together)
    torch.testing.assert_close(logits(again.eval()), logits(decoder.eval()), atol=0, rtol=0)
    compare_with_peft(base, tmp_path / "adapter", decoder.train(), documents)


PEFT_SETTINGS = {
    "lora": {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"]},
    "all-linear": {"r": 3, "lora_alpha": 5, "target_modules": "all-linear"},
    "regular-expression": {"r": 3, "target_modules": r".*\.(0\.self_attn\.k_proj|1\.mlp\.gate_proj)"},
    "excluded": {"r": 3, "target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*layers\.0\.mlp.*"},
    "one-layer": {"r": 3, "target_modules": ["q_proj"], "layers_to_transform": 1},
    "rslora-dora": {"r": 3, "use_rslora": True, "use_dora": True, "target_modules": ["o_proj"]},
    "patterns": {
        "r": 3,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 5},
        "alpha_pattern": {"model.layers.1.self_attn.q_proj": 40},
    },
    "head": {"r": 3, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "embeddings": {"r": 3, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "kept-tied": {
        "r": 3,
        "target_modules": ["q_proj"],
        "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": True,
    },
}


@pytest.mark.parametrize("settings", PEFT_SETTINGS)
def test_we_load_what_peft_saves(settings, tmp_path):
    torch.manual_seed(2)
    base = tmp_path / "base"
    LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=settings == "kept-tied")).save_pretrained(base)
    config = PeftLoraConfig(**PEFT_SETTINGS[settings], init_lora_weights=False)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_A" not in name and "lora_B" not in name:
                parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "adapter")
    decoder = load_decoder(str(base))
    load_adapter(decoder, tmp_path / "adapter")
    torch.testing.assert_close(logits(decoder), model(IDS[None]).logits[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_an_adapter_on_nf4_weights_is_an_adapter_on_the_rounded_weights(method, tmp_path):
    torch.manual_seed(0)
    sizes = {**SIZES, "hidden_size": 64, "intermediate_size": 128}
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path / "base")
    rounded, plain = load_decoder(str(tmp_path / "base"), weights="nf4"), load_decoder(str(tmp_path / "base"))
    for path, linear in plain.linears.items():
        linear.weight.copy_(rounded.linears[path].dequantized())
    outputs = []
    for decoder in (rounded, plain):
        inject(decoder, METHODS[method])
        randomize(decoder)
        out = logits(decoder)
        out.logsumexp(-1).sum().backward()
        outputs.append([out.detach(), *(p.grad for p in decoder.adapter.parameters().values())])
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_an_adapter_that_does_not_fit_leaves_the_decoder_as_it_was(base, tmp_path):
    decoder = load_decoder(str(base))
    before = logits(decoder)
    donor = load_decoder(str(base))
    inject(donor, METHODS["both"])
    randomize(donor)
    save_adapter(donor, tmp_path / "good", base=str(base))
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    weights = tmp_path / "bad" / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors.popitem()
    save_file(tensors, weights)
    with pytest.raises(UserError, match="is missing"):
        load_adapter(decoder, tmp_path / "bad")
    assert torch.equal(logits(decoder), before)
    assert decoder.adapter is None
    adapter = load_adapter(decoder, tmp_path / "good")
    assert not any(p.requires_grad for p in adapter.parameters().values())
    torch.testing.assert_close(logits(decoder), logits(donor.eval()), atol=0, rtol=0)


def test_what_means_nothing_in_the_model_is_refused(base):
    for settings, problem in [
        ({"layers": [0, 7]}, "layer 7 is not in this model.*0 to 1"),
        ({"targets": ["layers.5.mlp.up_proj"]}, "matches no linear"),
        ({"rank_pattern": {"qproj": 3}}, "pattern 'qproj' matches no adapted linear"),
    ]:
        with pytest.raises(UserError, match=problem):
            inject(load_decoder(str(base)), LoraConfig(**settings))
    for settings in ({"layers": []}, {"alpha": float("inf")}, {"alpha_pattern": {"q_proj": float("nan")}}):
        with pytest.raises(ValueError, match="LoraConfig"):
            LoraConfig(**settings)


def test_dora_forgets_a_norm_when_its_values_change(base):
    decoder = load_decoder(str(base))
    inject(decoder, METHODS["dora"])
    randomize(decoder)
    decoder.eval()
    with torch.no_grad():
        before = logits(decoder)
        for module in lora_modules(decoder).values():
            module.lora_B.mul_(2)
        changed = logits(decoder)
        decoder.train()
        torch.testing.assert_close(changed, logits(decoder), atol=1e-5, rtol=0)
    assert not torch.allclose(before, changed, atol=1e-2)


def test_an_adapter_of_another_base_is_refused_unless_forced(base, tmp_path):
    decoder = load_decoder(str(base))
    inject(decoder, CONFIG)
    save_adapter(decoder, tmp_path / "a", base=str(base))
    facts = json.loads((tmp_path / "a" / "cbtrain.json").read_text())["base"]
    assert facts == {"name": str(base), "base_fingerprint": decoder.fingerprint, "base_weights": "fp32"}
    sister = tmp_path / "sister"
    torch.manual_seed(9)
    FAMILIES["llama"]().save_pretrained(sister)
    with pytest.raises(UserError, match=r"trained on another base model .*--force"):
        load_adapter(load_decoder(str(sister)), tmp_path / "a")
    load_adapter(load_decoder(str(sister)), tmp_path / "a", force=True)
    # Two files are enough for other programs; they carry the fingerprint too.
    (tmp_path / "a" / "cbtrain.json").unlink()
    with pytest.raises(UserError, match="another base model"):
        load_adapter(load_decoder(str(sister)), tmp_path / "a")


def test_bad_adapters_are_refused(base, tmp_path):
    decoder = load_decoder(str(base))
    with pytest.raises(ValueError, match="'q_pro'.*'q_proj'"):
        LoraConfig(targets=["q_pro"])
    with pytest.raises(UserError, match=r"adapter_config\.json: adapter file is missing"):
        load_adapter(decoder, tmp_path)
    inject(decoder, CONFIG)
    with pytest.raises(UserError, match="already has an adapter"):
        inject(decoder, CONFIG)
    save_adapter(decoder, tmp_path / "a", base="x")
    described = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    for change, problem in [
        ({"r": None}, "r: must be a whole number"),
        ({"use_dora": True}, "lora_magnitude_vector' is missing"),
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"modules_to_save": ["lm_head"]}, r"lm_head\.weight' is missing"),
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
        ({"trainable_token_indices": [3]}, r"trainable_token_indices=\[3\] is not supported"),
        ({"bias": "all"}, "bias='all' is not supported"),
        ({"target_modules": [["q_proj"]]}, "is not a list of names"),
        ({"modules_to_save": 5}, "modules_to_save=5 is not a list of names"),
        ({"init_lora_weights": "pissa"}, "'pissa' changes the base's weights too"),
        ({"use_rslora": "false"}, "use_rslora: must be true or false.*Is this an adapter of peft"),
        ({"use_dora": "no"}, "use_dora: must be true or false"),
        ({"use_dora": 1}, "use_dora: must be true or false"),
        ({"ensure_weight_tying": "no"}, "ensure_weight_tying: must be true or false"),
        ({"r": True}, "r: must be a whole number"),
        ({"r": "4"}, "r: must be a whole number"),
        ({"r": 4.5}, "r: must be a whole number"),
        ({"r": 10**12}, "r: must be at most 65536"),
        ({"r": 65_536}, r"q_proj\.lora_A\.weight' has shape \(4, 32\); shape \(65536, 32\) is needed"),
        ({"rank_pattern": {"q_proj": 10**12}}, r"rank_pattern\.q_proj: must be at most"),
        ({"lora_alpha": "16"}, "lora_alpha: must be a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha: must be a finite number"),
        ({"layers_to_transform": [True]}, r"layers_to_transform\.0: must be a whole number"),
        ({"alpha_pattern": {"((a{9}){9}){9}": 2}}, "alpha_pattern: pattern .* repeats within repeats within repeats"),
        ({"rank_pattern": {"q_proj": 2}}, r"q_proj\.lora_A\.weight' has shape \(4, 32\); shape \(2, 32\) is needed"),
    ]:
        shutil.copytree(tmp_path / "a", tmp_path / "changed", dirs_exist_ok=True)
        (tmp_path / "changed" / "adapter_config.json").write_text(json.dumps(described | change))
        with pytest.raises(UserError, match=problem):
            load_adapter(load_decoder(str(base)), tmp_path / "changed")
    weights = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(weights)
    key = next(iter(tensors))
    for change, problem in [
        ({key: tensors[key] * float("nan")}, "holds NaN or infinity"),
        ({key: tensors[key][:1].clone()}, "has shape"),
        ({key: tensors[key].to(torch.float8_e4m3fn)}, "is stored as float8_e4m3fn"),
        ({key: tensors[key].to(torch.int32)}, "is stored as int32"),
        (
            {"base_model.model.lm_head.lora_A.weight": torch.ones(4, 32)},
            r"LoRA on 'lm_head' is not supported.*merge_and",
        ),
        ({"base_model.model.model.norm.lora_A.weight": torch.ones(4, 32)}, "does not belong to this model"),
        ({key: torch.empty(0)}, "is empty, as ranks of ZeRO-3 hold it"),
        (
            {key.replace(".weight", ".default.weight"): tensors[key] + 1},
            "bears the adapter's name 'default', as state_dict",
        ),
    ]:
        save_file({**tensors, **change}, weights)
        with pytest.raises(UserError, match=problem):
            load_adapter(load_decoder(str(base)), tmp_path / "a")
    save_file({}, weights)
    with pytest.raises(UserError, match="holds no tensors"):
        load_adapter(load_decoder(str(base)), tmp_path / "a")
    save_file(tensors, weights)
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UserError, match="damaged safetensors file"):
        load_adapter(load_decoder(str(base)), tmp_path / "a")
    with pytest.raises(UserError, match=r"'layers\.5\.mlp\.up_proj' matches no linear of this model.*0 to 1"):
        inject(load_decoder(str(base)), LoraConfig(targets=["layers.5.mlp.up_proj"]))
    with pytest.raises(ValueError, match="not a regular expression"):
        LoraConfig(rank_pattern={"q_proj(": 3})
    with pytest.raises(ValueError, match="not a positive number"):
        LoraConfig(alpha_pattern={"q_proj": 0})


@pytest.mark.fault("B8")
@pytest.mark.parametrize(
    ("settings", "rows", "problem"),
    [
        (
            {"target_modules": ["q_proj", "lm_head"]},
            97,
            "unknown target 'lm_head'.*on the seven linears.*lm_head only as",
        ),
        ({"target_modules": "q_proj|lm_head"}, 97, "lm_head"),
        (
            {"target_modules": ["q_proj", "embed_tokens"]},
            97,
            "LoRA on 'embed_tokens' is not supported.*Merge it with peft",
        ),
        (
            {"target_modules": ["q_proj"]},
            99,
            "vocabulary was resized to 99 tokens instead of the base's 97.*Merge it with",
        ),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, 99, "resized to 99 tokens instead of"),
    ],
    ids=str,
)
def test_what_peft_can_train_and_cbtrain_cannot_load_is_named(base, tmp_path, settings, rows, problem):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(rows, mean_resizing=False)
    peft = get_peft_model(model, PeftLoraConfig(r=2, **settings))
    peft.save_pretrained(tmp_path / "a", save_embedding_layers=rows != 97)
    with pytest.raises(UserError, match=problem) as caught:
        load_adapter(load_decoder(str(base)), tmp_path / "a")
    assert "another base" not in str(caught.value)


@pytest.mark.fault("B8")
def test_a_pickled_adapter_and_an_unknown_setting_are_named(base, tmp_path):
    decoder = load_decoder(str(base))
    inject(decoder, CONFIG)
    save_adapter(decoder, tmp_path / "a", base="x")
    weights, config = tmp_path / "a" / "adapter_model.safetensors", tmp_path / "a" / "adapter_config.json"
    described = json.loads(config.read_text())
    config.write_text(json.dumps(described | {"use_wavelets": True}))
    with pytest.raises(UserError, match="use_wavelets=True is a setting that this cbtrain does not know"):
        load_adapter(load_decoder(str(base)), tmp_path / "a")
    weights.rename(weights.with_name("adapter_model.bin"))
    with pytest.raises(UserError, match=r"adapter_model\.bin: its weights are a pickle, which is never opened"):
        load_adapter(load_decoder(str(base)), tmp_path / "a")


@pytest.mark.fault("B8")
def test_every_setting_of_peft_is_known():
    from cbtrain.model.adapters import peft_format

    known = peft_format.USED | peft_format.HARMLESS | peft_format.NEUTRAL.keys()
    assert {field.name for field in dataclasses.fields(PeftLoraConfig)} <= known


ATOMS = ["a", ".", r"\.", "[ab]", "[^a]", r"\d", r"\W", "(ab|a)", "(a|b|)", "x?", "(a*)*", "(a|.)+", "a{2,3}", "^", "$"]
ATOMS += ["(b|)*", "a*?", "(?:a|.)*", "[0-9x]+", "|", "(a?){2}", "(a{1,2}){2,4}"]
PATHS = st.lists(st.text("ab0_x", min_size=1, max_size=4), min_size=1, max_size=3).map(".".join)


@given(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=5).map("".join), PATHS)
def test_patterns_match_as_they_do_in_peft(pattern, path):
    try:
        theirs = re.match(rf"(.*\.)?({pattern})$", path) is not None
    except re.error:
        return
    assert matches(pattern, path) == theirs


@pytest.mark.parametrize("pattern", ["((a|.)*)*=", "(.*.*)*=", "a?" * 99 + "=", "(a|a|a){4000000000}", ".*" * 99 + "="])
def test_a_pattern_that_keeps_re_busy_for_ever_is_answered(pattern, base):
    with pytest.raises(UserError, match="matches no adapted linear"):
        inject(load_decoder(str(base)), LoraConfig(rank_pattern={pattern: 2}))


@pytest.mark.parametrize("pattern", ["(?i)q", "(?=q)q", r"(q)\1", r"\bq", "q" * 201, "q(", "(" * 99, "((.*)*)*"])
def test_a_pattern_that_is_not_followed_is_refused(pattern):
    with pytest.raises(ValueError, match="pattern"):
        LoraConfig(alpha_pattern={pattern: 2})


def test_two_tied_tensors_of_an_adapter_that_differ_are_refused(tmp_path):
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)).save_pretrained(tmp_path / "tied")
    decoder = load_decoder(str(tmp_path / "tied"))
    inject(decoder, LoraConfig(rank=2, modules_to_save=["embed_tokens"]))
    save_adapter(decoder, tmp_path / "a", base="x")
    file = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(file)
    (head,) = (name for name in tensors if name.endswith("lm_head.weight"))
    tensors[head][3, 1] += 1
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"lm_head\.weight' differ, but its settings tie them"):
        load_adapter(load_decoder(str(tmp_path / "tied")), tmp_path / "a")
