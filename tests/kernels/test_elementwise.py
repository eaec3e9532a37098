"""Norm, rotation and SwiGLU in Triton's interpreter: results and gradients against the references in fp64."""

import pytest
from interpreted import interpreted

pytest.importorskip("triton")

PROGRAM = """
from cbtrain.kernels.rms_norm import *
from cbtrain.kernels.rope import rope, rope_reference
from cbtrain.kernels.swiglu import *

torch.manual_seed(0)

def compare(name, function, reference, tensors, **options):
    # Both change some of the tensors in place, and return others; all are compared.
    exact = [t.double() for t in tensors]
    wanted = [*(reference(*exact, **options) or ()), *exact]
    got = [*(function(*tensors, **options) or ()), *tensors]
    found[name] = max(float((g.double() - w).abs().max() / w.abs().max()) for g, w in zip(got, wanted, strict=True))

def tuples(function):
    def called(*args, **options):
        out = function(*args, **options)
        return (out,) if isinstance(out, torch.Tensor) else out
    return called

def part(rows, heads, n, dtype):
    # Some columns of a wider tensor, as of queries among query, key and value.
    return torch.randn(rows, heads * n + 24).to(dtype)[:, 8 : 8 + heads * n].unflatten(-1, (heads, n))

def summed(norm):
    return lambda x, weight, add: norm(x, weight, 1e-5, add=add)

def normed(norm):
    return lambda x, weight: norm(x, weight, 1e-5)

def normed_to(norm):
    def called(x, weight, out):
        assert norm(x, weight, 1e-5, out=out)[0] is out
    return called

def gradient(backward, inverse_rms, adds):
    def called(grad, x, weight, add, out):
        # In place of the one that is added, as before attention, or beside it, as after attention.
        out = {"in place": add, "beside": out, "alone": out}[adds]
        backward(grad.clone(), x, weight, inverse_rms(x, 1e-5), out, add=None if adds == "alone" else add)
    return called

def rotated(rotate, back, apart):
    def called(q, k, cos, sin, to_q, to_k):
        rotate((q, k), cos, sin, back=back, out=(to_q, to_k) if apart else None)
    return called

for dtype in (torch.float32, torch.bfloat16):
    kind = str(dtype)
    weight_of = lambda n: (1 + 0.3 * torch.randn(n)).to(dtype)
    for rows, n in ((1, 31), (37, 123), (5, 1000), (2, 4100)):
        case = f"{kind} {rows} {n}"
        some = lambda: torch.randn(rows, n).to(dtype)
        wide = torch.randn(rows, 2 * n + 3).to(dtype)[:, :n]
        compare(f"norm {case}", normed(rms_norm), normed(rms_norm_reference), [wide, weight_of(n)])
        compare(f"sum and norm {case}", summed(rms_norm), summed(rms_norm_reference), [some(), weight_of(n), wide])
        for adds in ("in place", "beside", "alone"):
            ways = [gradient(rms_norm_backward, inverse_rms, adds),
                    gradient(rms_norm_backward_reference, inverse_rms_reference, adds)]
            compare(f"norm back {adds} {case}", *ways, [some(), wide, weight_of(n), some(), some()])
        gate, up = torch.randn(rows, 2 * n).mul_(2).to(dtype).chunk(2, -1)
        compare(f"swiglu {case}", tuples(swiglu), tuples(swiglu_reference), [gate, up])
        compare(f"swiglu back {case}", swiglu_backward, swiglu_backward_reference, [some(), gate, up])
    for rows, heads, kv_heads, n in ((1, 4, 2, 6), (37, 5, 1, 16), (3, 3, 3, 128)):
        case = f"{kind} {rows} {heads} {n}"
        compare(f"norm of heads {case}", normed_to(rms_norm), normed_to(rms_norm_reference),
                [part(rows, heads, n, dtype), weight_of(n), part(rows, heads, n, dtype)])
        ways = [gradient(rms_norm_backward, inverse_rms, "alone"),
                gradient(rms_norm_backward_reference, inverse_rms_reference, "alone")]
        compare(f"norm of heads back {case}", *ways, [*(part(rows, heads, n, dtype) for _ in "gx"), weight_of(n),
                                                      *(part(rows, heads, n, dtype) for _ in "ao")])
        angles = torch.randn(rows, n)
        cos, sin = (t.to(dtype)[:, : n // 2] for t in (angles.cos(), angles.sin()))
        for back, apart in ((False, False), (True, True)):
            joined = torch.randn(rows, (heads + kv_heads) * n).to(dtype)
            q, k = joined.unflatten(-1, (-1, n)).split([heads, kv_heads], 1)
            to = [part(rows, heads, n, dtype), part(rows, kv_heads, n, dtype)]
            # As attention's gradients come: heads first in memory.
            q = q.transpose(0, 1).contiguous().transpose(0, 1) if apart else q
            compare(f"rope {back} {case}", rotated(rope, back, apart), rotated(rope_reference, back, apart),
                    [q, k, cos, sin, *to])

# Rows so far apart that a 32-bit offset would miss them; pages that nobody touches take no memory.
def far(*shape):
    tensor = torch.empty_strided((3, *shape), (2**30 + 8, *torch.empty(shape).stride()), dtype=torch.bfloat16)
    return tensor.copy_(torch.randn(3, *shape))

bf16 = [torch.ones(40, dtype=torch.bfloat16), torch.randn(3, 40).to(torch.bfloat16)]
compare("far sum and norm", summed(rms_norm), summed(rms_norm_reference), [far(40), *bf16])
ways = [gradient(rms_norm_backward, inverse_rms, "beside"),
        gradient(rms_norm_backward_reference, inverse_rms_reference, "beside")]
compare("far norm back", *ways, [bf16[1], far(40), bf16[0], far(40), far(40)])
compare("far swiglu back", swiglu_backward, swiglu_backward_reference, [bf16[1], far(40), far(40)])
angles = torch.ones(3, 4, dtype=torch.bfloat16)
ways = [rotated(rope, True, True), rotated(rope_reference, True, True)]
compare("far rope", *ways, [far(4, 8), far(2, 8), angles, angles, far(4, 8), far(2, 8)])
apart = lambda n: far(3, n).transpose(0, 1)  # heads first, as gradients of attention come
compare("far rope of heads", *ways, [apart(8), apart(8), angles, angles, apart(8), apart(8)])
compare("far norm of heads", normed_to(rms_norm), normed_to(rms_norm_reference), [apart(40), bf16[0], apart(40)])
ways = [gradient(rms_norm_backward, inverse_rms, "alone"),
        gradient(rms_norm_backward_reference, inverse_rms_reference, "alone")]
compare("far norm of heads back", *ways, [apart(40), apart(40), bf16[0], far(40), apart(40)])

nothing = torch.empty(0, 8)
rms_norm(nothing, torch.ones(8), 1e-5, add=nothing)
swiglu_backward(nothing, nothing, swiglu(nothing, nothing))
rope((nothing[:, None],) * 2, nothing[:, :4], nothing[:, :4])

around = torch.full((4, 30), 7.0)
middle = around[:, 5:25]
rms_norm(torch.randn(4, 20), torch.ones(20), 1e-5, out=middle)
rms_norm_backward(middle, torch.randn(4, 20), torch.ones(20), torch.ones(4, 1), middle)
swiglu_backward(torch.randn(4, 10), *middle.chunk(2, -1))
rope((middle.unflatten(-1, (2, 10)),) * 2, torch.ones(4, 5), torch.ones(4, 5))
found["outside"] = float((around[:, :5] - 7).abs().sum() + (around[:, 25:] - 7).abs().sum())
found["inside"] = float((middle == 7).sum())
found["refused"] = []
column = torch.ones(4, 4).t()
for call in (lambda: rms_norm(column, torch.ones(4), 1e-5), lambda: swiglu(column, column),
             lambda: rope((torch.ones(2, 2, 4).transpose(1, 2),) * 2, column, column)):
    try:
        call()
    except ValueError as error:
        found["refused"].append(str(error))
"""

ROUNDINGS = {"norm": 2, "sum": 3, "rope": 3, "swiglu": 3, "far": 3}
"""Of a number on its way, at most: the interpreter cuts bf16 off, by up to 2^-7 each time, where a GPU rounds it."""


@pytest.fixture(scope="module")
def found():
    return interpreted(PROGRAM)


def test_results_and_gradients_are_those_in_fp64(found):
    errors = {name: error for name, error in found.items() if name not in ("outside", "inside", "refused")}
    assert len(errors) == 2 * (4 * 7 + 3 * 4) + 7
    for name, error in errors.items():
        allowed = 1e-6 if "float32" in name else ROUNDINGS[name.split()[0]] * 2**-7
        assert error <= allowed, (name, error)


def test_nothing_is_written_beside_the_results(found):
    assert found["outside"] == found["inside"] == 0


def test_rows_with_gaps_between_their_numbers_are_refused(found):
    assert len(found["refused"]) == 3
    assert all("do not lie side by side" in refused or "cannot be normed" in refused for refused in found["refused"])
