"""Our decoder against ``transformers``, number by number, on small random configs."""

import itertools

import pytest
import torch
from transformers import (
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
from cbtrain.model.weights.loading import load_decoder

SIZES = {
    "vocab_size": 211,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
YARN_ROPE = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
CASES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama-3.1-rope": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE)),
    "llama-tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama-biases": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "llama-head-dim": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=12)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "mistral-window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=7)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "llama-linear-rope": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LINEAR_ROPE)),
    "qwen2-yarn": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, rope_parameters=YARN_ROPE)),
    "qwen2-yarn-own-factor": lambda: Qwen2ForCausalLM(
        Qwen2Config(**SIZES, rope_parameters={**YARN_ROPE, "attention_factor": 1.3, "beta_fast": 8, "beta_slow": 2})
    ),
    "llama-yarn-mscale": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, rope_parameters={**YARN_ROPE, "mscale": 0.7, "mscale_all_dim": 0.3})
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16)),
    "qwen3-tied-biases": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True, attention_bias=True)
    ),
    "qwen2-tied": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)),
}


def random_weights(model, seed):
    """Weights wide enough that a wrong bias, norm or angle shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.08)
    return model.eval()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case, seed, tmp_path):
    reference = random_weights(CASES[case](), seed)
    reference.save_pretrained(tmp_path)
    decoder = load_decoder(str(tmp_path))
    ids = torch.randint(0, 211, (90,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = reference(ids[None]).logits[0]
        hidden = decoder(ids, torch.arange(90), decoder.packed([0, 90]))
        actual = decoder.logits(hidden)
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def three_documents():
    """Borders, positions and ids of a pack, and the same ids with every token of the second document changed."""
    cu = [0, 1, 34, 60]
    positions = torch.cat([torch.arange(b - a) for a, b in itertools.pairwise(cu)])
    ids = torch.randint(0, 211, (60,), generator=torch.Generator().manual_seed(5))
    changed = ids.clone()
    changed[1:34] = (changed[1:34] + 1) % 211
    return cu, positions, ids, changed


@pytest.mark.parametrize("case", ["llama", "mistral-window", "qwen2", "qwen3"])
def test_packed_documents_do_not_see_each_other(case, tmp_path):
    random_weights(CASES[case](), 3).save_pretrained(tmp_path)
    decoder = load_decoder(str(tmp_path))
    cu, positions, ids, changed = three_documents()

    def run(tokens):
        return decoder.logits(decoder(tokens, positions, decoder.packed(cu)))

    before, after = run(ids), run(changed)
    assert torch.equal(before[:1], after[:1])
    assert torch.equal(before[34:], after[34:])
    assert not torch.allclose(before[1:34], after[1:34], atol=1e-2)
    alone = decoder.logits(decoder(ids[34:], torch.arange(26), decoder.packed([0, 26])))
    torch.testing.assert_close(before[34:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["llama", "mistral-window", "qwen2", "qwen3"])
def test_a_documents_gradients_do_not_know_the_others_words(case, tmp_path):
    random_weights(CASES[case](), 3).save_pretrained(tmp_path)
    decoder = load_decoder(str(tmp_path))
    cu, positions, ids, changed = three_documents()
    embedded = []

    def keep(module, arguments, output):
        embedded.append(output.requires_grad_())
        return output

    decoder.embed_tokens.register_forward_hook(keep)

    def gradients(tokens):
        hidden = decoder(tokens, positions, decoder.packed(cu))
        return torch.autograd.grad(decoder.logits(hidden).logsumexp(-1).sum(), embedded.pop())[0]

    before, after = gradients(ids), gradients(changed)
    assert before.abs().max() > 0.01
    assert torch.equal(before[:1], after[:1])
    assert torch.equal(before[34:], after[34:])
    assert not torch.allclose(before[1:34], after[1:34], atol=1e-3)


def test_rope_is_exact_at_position_100_000():
    from cbtrain.model.rope import cos_sin, inverse_frequencies
    from cbtrain.model.rope_keys import Rope

    cos, _ = cos_sin(torch.tensor([100_000]), inverse_frequencies(Rope(theta=500_000.0), 128))
    exact = torch.cos(100_000 * 500_000.0 ** (-torch.arange(0, 128, 2).double() / 128))
    # fp32 angles of 1e5 carry an absolute error of about 4e-3; bf16 ones would be off by hundreds.
    torch.testing.assert_close(cos[0, :64].double(), exact, atol=2e-2, rtol=0)


@pytest.mark.parametrize("case", ["llama", "llama-3.1-rope", "llama-linear-rope", "qwen2-yarn", "llama-yarn-mscale"])
def test_logits_equal_transformers_at_position_100_000(case, tmp_path):
    reference = random_weights(CASES[case](), 0)
    reference.save_pretrained(tmp_path)
    decoder = load_decoder(str(tmp_path))
    ids = torch.randint(0, 211, (40,), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(100_000, 100_040)
    with torch.no_grad():
        expected = reference(ids[None], position_ids=positions[None]).logits[0]
        actual = decoder.logits(decoder(ids, positions, decoder.packed([0, 40])))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config])
def test_absent_keys_mean_what_they_mean_in_transformers(family):
    from cbtrain.model.architecture import parse_architecture

    name = family.__name__.replace("Config", "ForCausalLM")
    short = {"vocab_size": 64, "hidden_size": 1024, "intermediate_size": 64, "num_hidden_layers": 1}
    short |= {"num_attention_heads": 32}
    ours, theirs = parse_architecture({**short, "architectures": [name]}, "x"), family(**short)
    assert ours.kv_heads == theirs.num_key_value_heads
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or 32)
    assert ours.max_positions == theirs.max_position_embeddings
    assert ours.norm_eps == theirs.rms_norm_eps
    assert ours.rope.theta == theirs.rope_parameters["rope_theta"]
    assert ours.tied_embeddings == theirs.tie_word_embeddings
    if family is MistralConfig:
        assert ours.sliding_window == theirs.sliding_window == 4096


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"architectures": [None]}, "is not supported"),
        ({"architectures": "LlamaForCausalLM"}, None),
        ({"vocab_size": float("inf")}, "a value of a wrong kind"),
        ({"rope_parameters": {"rope_theta": -3.0}}, "rope_theta is -3.0, not a number"),
        ({"rope_parameters": {**LINEAR_ROPE, "factor": 0}}, "factor 0"),
        ({"eos_token_id": ["a"]}, "a value of a wrong kind"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false', not true or false"),
        *(
            ({"rope_parameters": {"rope_type": kind, "factor": 2.0}}, f"RoPE type '{kind}'")
            for kind in ("dynamic", "su")
        ),
    ],
    ids=str,
)
def test_odd_configs_are_read_or_refused_in_one_line(change, problem):
    from cbtrain.model.architecture import parse_architecture

    config = {**LlamaConfig(**SIZES).to_dict(), "architectures": ["LlamaForCausalLM"], **change}
    if problem is None:
        assert parse_architecture(config, "x").name == "LlamaForCausalLM"
        return
    with pytest.raises(UserError, match=problem) as caught:
        parse_architecture(config, "x")
    assert "\n" not in str(caught.value)


def test_rope_scaling_reaches_further_than_the_positions_that_the_config_names():
    from cbtrain.model.architecture import parse_architecture

    config = {**LlamaConfig(**SIZES).to_dict(), "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64}
    assert parse_architecture(config, "x").context == 64
    scaled = {**LLAMA3_ROPE, "original_max_position_embeddings": 64}
    assert parse_architecture({**config, "rope_parameters": scaled}, "x").context == 512
    assert parse_architecture({**config, "rope_parameters": LINEAR_ROPE}, "x").context == 256
    # As Qwen 2.5's documentation has it: the config still names the original positions.
    old = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    assert parse_architecture({**config, "rope_parameters": None, "rope_scaling": old}, "x").context == 256


def edit_config(folder, **changes):
    import json

    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_unsupported_facts_are_refused_by_name(tmp_path):
    CASES["llama"]().save_pretrained(tmp_path)
    edit_config(tmp_path, architectures=["GPT2LMHeadModel"])
    with pytest.raises(UserError, match="'GPT2LMHeadModel' is not supported.*LlamaForCausalLM, MistralForCausalLM"):
        load_decoder(str(tmp_path))
    edit_config(tmp_path, architectures=["LlamaForCausalLM"], rope_parameters={"rope_type": "longrope"})
    with pytest.raises(UserError, match="RoPE type 'longrope'"):
        load_decoder(str(tmp_path))
    edit_config(tmp_path, rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5})
    with pytest.raises(UserError, match="RoPE on 0.5 of each head"):
        load_decoder(str(tmp_path))
    edit_config(tmp_path, rope_parameters={"rope_theta": 1e4}, num_key_value_heads=4)
    with pytest.raises(UserError, match="6 attention heads cannot share 4"):
        load_decoder(str(tmp_path))
    edit_config(tmp_path, num_key_value_heads=2, hidden_act="gelu")
    with pytest.raises(UserError, match="activation 'gelu'"):
        load_decoder(str(tmp_path))


@pytest.mark.parametrize("case", ["qwen2", "qwen3"])
def test_a_qwen_window_in_some_layers_is_refused(case, tmp_path):
    CASES[case]().save_pretrained(tmp_path)
    edit_config(tmp_path, use_sliding_window=True, sliding_window=7)
    with pytest.raises(UserError, match="use_sliding_window is not supported"):
        load_decoder(str(tmp_path))
