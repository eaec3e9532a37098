"""SwiGLU (Shazeer 2020, arXiv 2002.05202) of two halves of a product, and its gradient in place of them.

``silu(gate)`` is rounded before it is multiplied, as in the Hugging Face models. The references are what the decoder
computes where the kernels do not serve.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtrain.kernels.runtime import Build, Traffic, build_of, on_device_of, tl, triton

_silu_backward = torch.ops.aten.silu_backward.grad_input


def swiglu_reference(gate: Tensor, up: Tensor) -> Tensor:
    """Return ``silu(gate) · up`` of ``gate``, ``up [T, n]``."""
    return F.silu(gate).mul_(up)


def swiglu_backward_reference(grad: Tensor, gate: Tensor, up: Tensor) -> None:
    """Overwrite ``gate`` and ``up [T, n]`` with their gradients for the gradient ``grad [T, n]`` of
    :func:`swiglu_reference`."""
    activated, of_activated = F.silu(gate), grad * up
    torch.mul(grad, activated, out=up)
    _silu_backward(of_activated, gate, grad_input=gate)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return the same as :func:`swiglu_reference`, in one launch."""
    rows, n = gate.shape
    out = torch.empty((rows, n), dtype=gate.dtype, device=gate.device)
    block = _block(n, gate, up)
    with on_device_of(gate):
        _forward[(rows, -(-n // block))](
            gate, up, out, n, gate.stride(0), up.stride(0), out.stride(0), BLOCK=block, num_warps=WARPS
        )
    return out


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> None:
    """Do the same as :func:`swiglu_backward_reference`, in one launch."""
    rows, n = gate.shape
    block = _block(n, grad, gate, up)
    with on_device_of(gate):
        _backward[(rows, -(-n // block))](
            grad, gate, up, n, grad.stride(0), gate.stride(0), up.stride(0), BLOCK=block, num_warps=WARPS
        )


WARPS = 4
NUMBERS = 1024
"""Numbers of a program at most."""


def _block(n: int, *tensors: Tensor) -> int:
    """Return the numbers of a program. Raises ValueError if the numbers of a row do not lie side by side."""
    if any(tensor.stride(-1) != 1 for tensor in tensors):
        raise ValueError("rows whose numbers do not lie side by side have no SwiGLU")
    return min(NUMBERS, triton.next_power_of_2(n))


if triton is not None:
    # More than seven parameters: two inputs, one output, sizes, strides and the block.
    @triton.jit
    def _forward(  # type: ignore[no-untyped-def]
        GATE, UP, OUT, n, gate_token, up_token, out_token, BLOCK: tl.constexpr
    ):
        token = tl.program_id(0).to(tl.int64)
        columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        mask = columns < n
        dtype = OUT.dtype.element_ty
        gate = tl.load(GATE + token * gate_token + columns, mask, 0.0).to(tl.float32)
        up = tl.load(UP + token * up_token + columns, mask, 0.0).to(tl.float32)
        activated = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32)
        tl.store(OUT + token * out_token + columns, (activated * up).to(dtype), mask)

    # More than seven parameters: three inputs, two of which are outputs, sizes, strides and the block.
    @triton.jit
    def _backward(  # type: ignore[no-untyped-def]
        GRAD, GATE, UP, n, grad_token, gate_token, up_token, BLOCK: tl.constexpr
    ):
        token = tl.program_id(0).to(tl.int64)
        columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        mask = columns < n
        dtype = GATE.dtype.element_ty
        grad = tl.load(GRAD + token * grad_token + columns, mask, 0.0).to(tl.float32)
        gate = tl.load(GATE + token * gate_token + columns, mask, 0.0).to(tl.float32)
        up = tl.load(UP + token * up_token + columns, mask, 0.0).to(tl.float32)
        share = tl.sigmoid(gate)
        activated = (gate * share).to(dtype).to(tl.float32)
        of_activated = (grad * up).to(dtype).to(tl.float32)
        tl.store(UP + token * up_token + columns, (grad * activated).to(dtype), mask)
        slope = share * (1 + gate * (1 - share))
        tl.store(GATE + token * gate_token + columns, (of_activated * slope).to(dtype), mask)


def traffic(n: int, itemsize: int) -> dict[str, Traffic]:
    """Return for each pass the bytes for one token with ``n`` numbers of gate and of up."""
    once = n * itemsize
    return {"forward": Traffic(3 * once, 3 * once, 5 * once), "backward": Traffic(5 * once, 5 * once, 11 * once)}


def builds() -> list[Build]:
    """Return every configuration that is launched for the widths of the models that the documentation names."""
    found = []
    for kind in ("fp32", "bf16"):
        forward = dict.fromkeys(("GATE", "UP", "OUT"), f"*{kind}")
        forward |= dict.fromkeys(("n", "gate_token", "up_token", "out_token"), "i32")
        backward = dict.fromkeys(("GRAD", "GATE", "UP"), f"*{kind}")
        backward |= dict.fromkeys(("n", "grad_token", "gate_token", "up_token"), "i32")
        # The widths of all of them (14,336 and 18,944) are taken in blocks of one size.
        blocks = {"BLOCK": NUMBERS}
        found += [
            build_of("swiglu", function, arguments, blocks, (), WARPS)
            for function, arguments in ((_forward, forward), (_backward, backward))
        ]
    return found
