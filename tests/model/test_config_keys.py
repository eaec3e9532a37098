"""Each key of config.json is used as transformers uses it, refused by name, or told; none is ignored in silence."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from cbtrain.errors import UserError
from cbtrain.model import config_values
from cbtrain.model.architecture import parse_architecture
from cbtrain.model.config_keys import HARMLESS, NEUTRAL, USED, unused_keys
from cbtrain.model.config_values import BOOLEANS
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


ODD = [
    -3,
    0,
    -1e-9,
    1e-320,
    2.9,
    10**8,
    2**63 - 1,
    10**400,
    float("nan"),
    float("inf"),
    True,
    "false",
    "7",
    [],
    {},
    [2],
]
BASES = [{}, {"rope_parameters": YARN}, {"rope_parameters": LLAMA3}, {"architectures": ["MistralForCausalLM"]}]


@pytest.mark.fault("B1")
@pytest.mark.parametrize("base", BASES)
def test_a_value_out_of_range_is_one_line_before_anything_is_built(base):
    """Each number and each switch, at each odd value: refused, or finite, whole and small enough to be built."""
    base = {**SIZES, "model_type": None, **base}
    inside = base.get("rope_parameters")
    for key, value in itertools.product([*config_values.NUMBERS, *config_values.ROPE_NUMBERS, *BOOLEANS], ODD):
        for config in ({**base, key: value}, {**base, "rope_parameters": {**(inside or DEFAULT), key: value}}):
            try:
                architecture = parse_architecture(config, "x")
                unused_keys(config)
            except UserError:
                continue
            counts = [value for value in dataclasses.astuple(architecture) if isinstance(value, (int, float))]
            assert all(0 <= count <= 2**31 for count in counts), (key, value)
            assert architecture.layers <= 1024
            assert torch.isfinite(inverse_frequencies(architecture.rope, 32)).all(), (key, value)
            assert math.isfinite(architecture.rope.attention_factor)


@pytest.mark.fault("B1")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_hidden_layers": 10**8}, r"num_hidden_layers is 100000000, not a whole number from 1 to 1024"),
        ({"num_hidden_layers": 2.9}, "num_hidden_layers is 2.9, not a whole"),
        ({"vocab_size": 2**63 - 1}, "vocab_size is 9223372036854775807, not a whole"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, not a number"),
        ({"max_position_embeddings": -5}, "max_position_embeddings is -5, not a whole"),
        ({"sliding_window": -3}, "sliding_window is -3, not a whole"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false', not true or false"),
        ({"eos_token_id": [2, 2.5]}, "eos_token_id is 2.5, not a whole"),
        ({"rope_parameters": {**YARN, "beta_fast": -2}}, "rope_parameters.beta_fast is -2, not a number"),
        ({"rope_parameters": {**YARN, "beta_fast": 1, "beta_slow": 2}}, "'yarn' with beta_fast 1 and beta_slow 2"),
        ({"rope_parameters": {**YARN, "truncate": "false"}}, "rope_parameters.truncate is 'false', not true or false"),
        ({"rope_parameters": {**LLAMA3, "low_freq_factor": 0}}, "low_freq_factor 0 and high_freq_factor 4"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries and num_hidden_layers is 2"),
    ],
    ids=lambda value: None,
)
def test_the_value_that_is_wrong_is_named(change, problem):
    with pytest.raises(UserError, match=problem):
        parse_architecture({**SIZES, **change}, "x")


@pytest.mark.fault("B1")
def test_a_window_and_layers_of_full_attention_contradict_each_other():
    full = {**SIZES, "architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    full |= {"layer_types": ["full_attention"] * 2, "num_key_value_heads": 2}
    for window in ({"sliding_window": 7}, {}):  # without the key, transformers has a window of 4096
        with pytest.raises(UserError, match="they contradict each other. Set sliding_window to null, or remove"):
            parse_architecture({**full, **window}, "x")
    assert parse_architecture({**full, "sliding_window": None}, "x").sliding_window is None
    assert parse_architecture({**full, "layer_types": None, "sliding_window": 7}, "x").sliding_window == 7


NUMBERS = {"factor": [2.0, 4.0], "original_max_position_embeddings": [64, 256], "rope_theta": [1e4, 1e6]}
NUMBERS |= {"low_freq_factor": [1.0], "high_freq_factor": [4.0], "partial_rotary_factor": [1.0], "type": ["yarn"]}
NUMBERS |= {"beta_fast": [8, 32, 0], "beta_slow": [0.5, 20]}
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
        ({"rope_parameters": DEFAULT, "rope_theta": 1e6}, r"rope_theta is 1e\+06 in one place and 10000"),
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
