"""Each key of config.json is used as transformers uses it, refused by name, or told; none is ignored in silence."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from cbtrain.errors import UserError
from cbtrain.model.architecture import parse_architecture
from cbtrain.model.config_keys import HARMLESS, NEUTRAL, USED, unused_keys
from cbtrain.model.rope import inverse_frequencies

SIZES = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 211,
    "hidden_size": 192,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 512,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
DEFAULT = {"rope_type": "default", "rope_theta": 10_000.0}


def ours(config):
    rope = parse_architecture(config, "config.json").rope
    return inverse_frequencies(rope, 32), rope.attention_factor


def theirs(config):
    rotary = LlamaRotaryEmbedding(LlamaConfig.from_dict(copy.deepcopy(config)))
    return rotary.inv_freq, rotary.attention_scaling


def equal(one, other):
    return torch.allclose(one[0], other[0], rtol=1e-6, atol=0) and one[1] == pytest.approx(other[1])


@pytest.mark.fault("B1")
@pytest.mark.parametrize("scaling", [YARN, LLAMA3, {"type": "linear", "factor": 2.0}, {"rope_theta": 5e5, **YARN}])
def test_rope_scaling_beside_other_rope_parameters_is_refused(scaling):
    with pytest.raises(UserError, match=r"rope_scaling .* and rope_parameters \(default.*contradict.*into rope_param"):
        ours({**SIZES, "rope_scaling": scaling, "rope_parameters": DEFAULT})
    both = {
        **SIZES,
        "rope_scaling": scaling,
        "rope_parameters": {**scaling, "rope_type": scaling.get("rope_type", "linear")},
    }
    assert equal(ours(both), theirs(both))


@pytest.mark.fault("B1")
@pytest.mark.parametrize("kind", [YARN, LLAMA3])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_original_positions_outside_the_dictionary_are_read_as_transformers_reads_them(kind, inside, key):
    facts = {name: value for name, value in kind.items() if inside or name != "original_max_position_embeddings"}
    config = {**SIZES, key: facts, "original_max_position_embeddings": 128}
    assert equal(ours(config), theirs(config))
    assert not equal(ours(config), ours({**config, "original_max_position_embeddings": 16}))
    told = [text for text in unused_keys(config) if "outside it counts" in text]
    assert len(told) == inside


NUMBERS = {"factor": [2.0, 4.0], "original_max_position_embeddings": [64, 256], "rope_theta": [1e4, 1e6]}
NUMBERS |= {"low_freq_factor": [1.0], "high_freq_factor": [4.0], "partial_rotary_factor": [1.0], "type": ["yarn"]}
NUMBERS |= {"rope_type": ["default", "linear", "yarn", "llama3", "dynamic"], "mscale": [0.7], "truncate": [True, False]}
DICTIONARIES = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in NUMBERS.items()})
TOP = ("rope_theta", "original_max_position_embeddings", "partial_rotary_factor")
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "rope_scaling": DICTIONARIES | st.none(),
        "rope_parameters": DICTIONARIES | st.just({"full_attention": DEFAULT}),
        **{key: st.sampled_from(NUMBERS[key]) for key in TOP},
    },
)


@pytest.mark.fault("B1")
@given(CONFIGS)
def test_any_rope_is_that_of_transformers_or_refused(facts):
    try:
        read = ours({**SIZES, **facts})
    except UserError:
        return
    assert equal(read, theirs({**SIZES, **facts}))


@pytest.mark.parametrize("family", [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config])
def test_every_key_of_transformers_is_known(family):
    keys = {field.name for field in dataclasses.fields(family)} | set(family().to_dict())
    assert keys <= USED | HARMLESS | NEUTRAL.keys() | {"attention_dropout"}
    written = {**family(**{key: SIZES[key] for key in SIZES if key != "model_type"}, num_key_value_heads=2).to_dict()}
    written["architectures"] = [family.__name__.replace("Config", "ForCausalLM")]
    assert unused_keys(written) == []
    parse_architecture(written, "x")


@pytest.mark.fault("B1")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model_type": "qwen3"}, "model_type 'qwen3' and architectures 'LlamaForCausalLM' are two different models"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layers of the type 'sliding_attention'"),
        ({"rope_parameters": {"full_attention": DEFAULT, "sliding_attention": DEFAULT}}, "RoPE that differs by layer"),
        ({"rope_parameters": DEFAULT, "rope_theta": 1e6}, r"rope_theta is 1e\+06, and 10000"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0 changes what the model computes"),
        ({"logit_scale": 0.0625}, "logit_scale=0.0625 changes"),
        ({"num_local_experts": 8}, "num_local_experts=8 changes"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, r"already quantized \(bitsandbytes\)"),
    ],
    ids=lambda value: None,
)
def test_what_the_decoder_does_not_compute_is_refused(change, problem):
    with pytest.raises(UserError, match=problem) as caught:
        parse_architecture({**SIZES, **change}, "x")
    assert "\n" not in str(caught.value)


def test_what_is_not_used_is_told():
    odd = {"auto_map": {"AutoModel": "x.Y"}, "attention_dropout": 0.1, "wavelet_depth": 3, "nothing": None}
    odd["rope_parameters"] = {**DEFAULT, "factor": 4.0}
    assert unused_keys({**SIZES, **odd}) == [
        "auto_map (the model's own Python code is never run)",
        "attention_dropout=0.1 (attention is trained without dropout)",
        "rope_parameters.factor=4.0",
        "wavelet_depth (unknown)",
    ]
