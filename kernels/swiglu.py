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
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    grid, blocks = _grid(gate, up)
    with on_device_of(gate):
        _forward[grid](
            gate, up, out, *gate.shape, gate.stride(0), up.stride(0), out.stride(0), **blocks, num_warps=WARPS
        )
    return out


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> None:
    """Do the same as :func:`swiglu_backward_reference`, in one launch."""
    grid, blocks = _grid(gate, up, grad)
    with on_device_of(gate):
        _backward[grid](
            grad, gate, up, *gate.shape, grad.stride(0), gate.stride(0), up.stride(0), **blocks, num_warps=WARPS
        )


WARPS = 4
NUMBERS = 1024
"""Numbers of a program: a part of a row, or several short rows."""


def _blocks(n: int) -> dict[str, int]:
    """Return the rows and columns of a program."""
    columns = min(NUMBERS, triton.next_power_of_2(n))
    return {"ROWS": NUMBERS // columns, "COLUMNS": columns}


def _grid(gate: Tensor, *others: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """Return the numbers of programs, and the rows and columns of each. Raises ValueError if the numbers of a row do
    not lie side by side."""
    if any(tensor.stride(-1) != 1 for tensor in (gate, *others)):
        raise ValueError("rows whose numbers do not lie side by side have no SwiGLU")
    rows, n = gate.shape
    blocks = _blocks(n)
    return (-(-rows // blocks["ROWS"]), -(-n // blocks["COLUMNS"])), blocks


if triton is not None:
    # More than seven parameters: two inputs, one output, sizes, strides and the block.
    @triton.jit(do_not_specialize=["rows"])
    def _forward(  # type: ignore[no-untyped-def]
        GATE, UP, OUT, rows, n, gate_row, up_row, out_row, ROWS: tl.constexpr, COLUMNS: tl.constexpr
    ):
        row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        mask = (row < rows) & (column < n)
        dtype = OUT.dtype.element_ty
        gate = tl.load(GATE + row * gate_row + column, mask, 0.0).to(tl.float32)
        up = tl.load(UP + row * up_row + column, mask, 0.0).to(tl.float32)
        activated = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32)
        tl.store(OUT + row * out_row + column, (activated * up).to(dtype), mask)

    # More than seven parameters: three inputs, two of which are outputs, sizes, strides and the block.
    @triton.jit(do_not_specialize=["rows"])
    def _backward(  # type: ignore[no-untyped-def]
        GRAD, GATE, UP, rows, n, grad_row, gate_row, up_row, ROWS: tl.constexpr, COLUMNS: tl.constexpr
    ):
        row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        mask = (row < rows) & (column < n)
        dtype = GATE.dtype.element_ty
        grad = tl.load(GRAD + row * grad_row + column, mask, 0.0).to(tl.float32)
        gate = tl.load(GATE + row * gate_row + column, mask, 0.0).to(tl.float32)
        up = tl.load(UP + row * up_row + column, mask, 0.0).to(tl.float32)
        share = tl.sigmoid(gate)
        activated = (gate * share).to(dtype).to(tl.float32)
        of_activated = (grad * up).to(dtype).to(tl.float32)
        tl.store(UP + row * up_row + column, (grad * activated).to(dtype), mask)
        slope = share * (1 + gate * (1 - share))
        tl.store(GATE + row * gate_row + column, (of_activated * slope).to(dtype), mask)


def traffic(n: int, itemsize: int) -> dict[str, Traffic]:
    """Return for each pass the bytes for one token with ``n`` numbers of gate and of up."""
    once = n * itemsize
    return {"forward": Traffic(3 * once, 3 * once, 5 * once), "backward": Traffic(5 * once, 5 * once, 11 * once)}


def builds() -> list[Build]:
    """Return every configuration that is launched for the widths of the models that the documentation names."""
    found = []
    for kind in ("fp32", "bf16"):
        sizes = {"rows": "i32", "n": "i32"}
        forward = dict.fromkeys(("GATE", "UP", "OUT"), f"*{kind}") | sizes
        forward |= dict.fromkeys(("gate_row", "up_row", "out_row"), "i32")
        backward = dict.fromkeys(("GRAD", "GATE", "UP"), f"*{kind}") | sizes
        backward |= dict.fromkeys(("grad_row", "gate_row", "up_row"), "i32")
        # The rows of all of them (14,336 and 18,944) are taken in parts of one size.
        found += [
            build_of("swiglu", function, arguments, _blocks(14_336), ["rows"], WARPS)
            for function, arguments in ((_forward, forward), (_backward, backward))
        ]
    return found
