"""NF4 weights against a quantizer written from the paper, and against transformers with bitsandbytes."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from cbtrain.errors import UserError
from cbtrain.model.linears.formats import WeightFormat, choose_weight_format
from cbtrain.model.linears.nf4 import Nf4Linear
from cbtrain.model.weights.loading import load_decoder
from cbtrain.model.weights.memory import weight_memory

# QLoRA, appendix E: quantiles of the normal distribution, zero among them, scaled to [-1, 1].
NF4 = torch.tensor(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ]
)
SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
IDS = torch.arange(40).remainder(97)


def rounded(weight):
    """``weight`` after NF4 without double quantization: blocks of 64 share their largest magnitude."""
    blocks = weight.float().reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    codes = torch.bucketize(blocks / scale, (NF4[1:] + NF4[:-1]) / 2)
    return (NF4[codes] * scale).reshape(weight.shape)


def linear(weight, bias=None, *, compute=torch.float32, double=False):
    made = Nf4Linear(weight.shape[1], weight.shape[0], bias=bias is not None, double_quantization=double)
    made.load_weight(weight, compute)
    if bias is not None:
        made.bias.data.copy_(bias)
    return made


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_forward_and_backward_are_those_of_the_rounded_weight(stored):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(128, 192).to(stored), torch.randn(128), torch.randn(7, 192, requires_grad=True)
    expected_weight = rounded(weight)
    made = linear(weight, bias)
    torch.testing.assert_close(made.dequantized(), expected_weight, atol=1e-6, rtol=1e-6)
    actual, expected = made(x), torch.nn.functional.linear(x, expected_weight, bias)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-5)
    (ours,) = torch.autograd.grad(actual.square().sum(), x)
    (theirs,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-4)
    error = (made.dequantized() - weight.float()).norm() / weight.float().norm()
    assert 0.08 < error < 0.11  # 9.2 % on normal weights


def test_double_quantization_costs_little_and_saves_what_the_paper_says():
    torch.manual_seed(0)
    weight = torch.randn(512, 1024)
    single, double = linear(weight), linear(weight, double=True)
    difference = (single.dequantized() - double.dequantized()).norm() / weight.norm()
    assert 0 < difference < 0.01
    assert single.weight_bytes / weight.numel() == pytest.approx(0.5 + 4 / 64, abs=1e-4)
    assert double.weight_bytes / weight.numel() == pytest.approx(0.5 + 1 / 64 + 4 / (64 * 256), abs=1e-4)


def test_the_bytes_are_those_of_bitsandbytes():
    import bitsandbytes.functional as library

    torch.manual_seed(0)
    weight = torch.randn(1040, 1024)  # more than two stretches, and an odd rest
    made = linear(weight, double=True)
    packed, state = library.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    assert torch.equal(made.packed, packed)
    assert torch.equal(made.state.absmax, state.absmax)
    assert torch.equal(made.dequantized(), library.dequantize_4bit(packed, state))
    assert set(made.state.as_dict(packed=True)) == set(state.as_dict(packed=True))


def test_nothing_of_the_size_of_the_weight_is_kept_for_the_backward_pass():
    kept = []
    made, x = linear(torch.randn(128, 192)), torch.randn(3, 192, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        made(x)
    assert sum(kept) == 0


def test_casts_of_the_model_leave_the_bits_alone():
    made = linear(torch.randn(64, 64), torch.zeros(64), double=True)
    before = made.dequantized()
    made.to(torch.bfloat16)
    assert torch.equal(made.dequantized(), before)
    assert made.bias.dtype == torch.bfloat16


def logits(decoder):
    with torch.no_grad():
        return decoder.logits(decoder(IDS, torch.arange(40), decoder.packed([0, 40])))


@pytest.mark.parametrize("double", [False, True])
def test_logits_equal_transformers_with_bitsandbytes(double, tmp_path):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path)
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32,
    )
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings, dtype=torch.float32)
    # Outside of training some CPUs multiply in bf16 there, whatever the computing dtype; nothing else depends on it.
    reference.train()
    decoder = load_decoder(str(tmp_path), weights=WeightFormat("nf4", torch.float32, double))
    with torch.no_grad():
        expected = reference(IDS[None]).logits[0]
    torch.testing.assert_close(logits(decoder), expected, atol=1e-4, rtol=0)
    assert not torch.allclose(logits(decoder), logits(load_decoder(str(tmp_path))), atol=0.05)


def test_measured_bytes_per_parameter(tmp_path):
    LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, tie_word_embeddings=True)).save_pretrained(tmp_path)
    linears = 2 * (64 * (64 + 64 + 2 * 32) + 3 * 64 * 192)
    rest = 97 * 64 + 64 * 5 + 2 * (64 + 64 + 32 + 32)
    for weights, each, others in (("fp32", 4, 4), ("bf16", 2, 2), ("nf4", 0.5 + 1 / 64, 4)):
        memory = weight_memory(load_decoder(str(tmp_path), weights=weights))
        assert (memory.linear_parameters, memory.other_parameters) == (linears, rest)
        assert memory.bytes_per_linear_parameter == pytest.approx(each, rel=0.01)
        assert memory.other_bytes == rest * others


def test_formats_by_name():
    assert choose_weight_format("auto", "cpu") == WeightFormat("fp32", torch.float32)
    assert choose_weight_format("auto", "cuda") == WeightFormat("bf16", torch.bfloat16)
    assert choose_weight_format("nf4", "cuda:1").compute == torch.bfloat16
    assert choose_weight_format("nf4", "cpu", compute="bf16").compute == torch.bfloat16
    for weight_format in (
        choose_weight_format("bf16", "cpu"),
        choose_weight_format("nf4", "cuda", double_quantization=False),
    ):
        assert WeightFormat.from_text(str(weight_format)) == weight_format
    assert WeightFormat.from_text(None) is None
    with pytest.raises(UserError, match="unknown weight format 'nf8'.*'nf4'"):
        choose_weight_format("nf8", "cpu")
    with pytest.raises(UserError, match="bf16 weights compute in bf16, not in fp32"):
        choose_weight_format("bf16", "cpu", compute="fp32")
