"""The Triton kernel in Triton's interpreter, against the reference, by error relative to fp64."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# In a process of its own: the interpreter is chosen when the kernel is defined, and a stray pointer kills the process.
CHECK = """
import sys, torch
from cbtrain.kernels.rms_norm import rms_norm, rms_norm_reference

dtype, rows, hidden = getattr(torch, sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
empty_like = torch.empty_like
torch.empty_like = lambda t, **k: empty_like(t, **k).fill_(float("nan"))  # an unwritten output shows

def run(function, kind):
    x, r = (base.to(kind, copy=True).requires_grad_() for base in (X, R))
    total, out = function(x, r, W.to(kind), 1e-5)
    ((total * DT.to(kind)).sum() + (out * DO.to(kind)).sum()).backward()
    return [t.detach().double() for t in (total, out, x.grad, r.grad)]

X, R, DT, DO = (torch.randn(rows, hidden).to(dtype).double() for _ in range(4))
W = (1 + 0.3 * torch.randn(hidden)).to(dtype).double()
exact, plain, fused = run(rms_norm_reference, torch.float64), run(rms_norm_reference, dtype), run(rms_norm, dtype)
for name, e, p, f in zip(("total", "out", "dx", "dr"), exact, plain, fused):
    allowed = 2 * (p - e).abs().max() + (2e-6 if dtype is torch.float32 else 2e-3) * e.abs().max()
    error = (f - e).abs().max()
    assert error <= allowed, (name, float(error), float(allowed))
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "hidden"), [(1, 31), (37, 123), (5, 1000)])
def test_kernel_equals_the_reference(dtype, rows, hidden):
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", CHECK, dtype, str(rows), str(hidden)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr[-2000:]
