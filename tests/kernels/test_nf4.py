"""NF4 in Triton's interpreter: the bits of bitsandbytes."""

import pytest
from interpreted import interpreted

pytest.importorskip("triton")
pytest.importorskip("bitsandbytes")

PROGRAM = """
import os
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes would compile what it does with odd rows for seconds
import bitsandbytes.functional as library
from cbtrain.kernels.nf4 import Packed, dequantize, dequantize_reference

def packed_of(state, codes):
    inner = state.state2
    nested = (inner.code, inner.absmax, state.offset) if state.nested else None
    return Packed(codes.flatten(), torch.Size(state.shape), state.code, state.absmax, nested)

torch.manual_seed(0)
for shape in ((1, 1), (5, 31), (37, 123), (64, 64), (300, 200)):
    for double in (False, True):
        weight = torch.randn(shape)
        codes, state = library.quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type="nf4")
        exact, packed = library.dequantize_4bit(codes, state), packed_of(state, codes)
        ours, narrow = dequantize(packed, torch.float32), dequantize(packed, torch.bfloat16)
        found[f"{shape} {double}"] = {
            "equal": torch.equal(ours, exact), "shape": ours.shape == weight.shape == narrow.shape,
            "reference": torch.equal(dequantize_reference(packed, torch.float32), exact),
            "bf16": float((narrow.float() - exact).abs().sub(2**-7 * exact.abs()).max()),
        }
found["none"] = list(dequantize(Packed(codes[:0], torch.Size((0, 4)), state.code, state.absmax, None), exact.dtype).shape)

from cbtrain.model.linears import nf4
launched = nf4.unpack
for double in (False, True):
    linear = nf4.Nf4Linear(96, 50, bias=False, double_quantization=double)
    linear.load_weight(torch.randn(50, 96), torch.float32)
    x = torch.randn(3, 96, requires_grad=True)
    runs = []
    for linear.kernel in (False, True):
        nf4.unpack = launched if linear.kernel else None
        out = linear(x)
        runs.append((linear.matrix(), out.detach(), *torch.autograd.grad(out.square().sum(), x)))
    found[f"linear {double}"] = {"equal": all(map(torch.equal, *runs)), "kept": linear.weight_bytes}
"""


@pytest.fixture(scope="module")
def found():
    return interpreted(PROGRAM)


def test_bits_are_those_of_bitsandbytes(found):
    cases = {name: case for name, case in found.items() if name.startswith("(")}
    assert len(cases) == 10
    for name, case in cases.items():
        assert case["equal"], name
        assert case["reference"], name
        assert case["shape"], name
        assert case["bf16"] <= 0, name
    assert found["none"] == [0, 4]


def test_a_linear_takes_the_kernel_and_keeps_its_bits(found):
    for double, kept in ((False, 2400 + 4 * 75), (True, 2400 + 75 + 4 + 4)):
        assert found[f"linear {double}"] == {"equal": True, "kept": kept}
