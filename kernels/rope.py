"""Rotary positions (Su et al. 2021, arXiv 2104.09864) of queries and keys, in one launch, and the way back.

The two halves of a head are the coordinates that are rotated, as in the Hugging Face models, and each product and the
sum are rounded as there. The gradient goes the same way with the angle negated.

The reference is what the decoder computes where the kernel does not serve. In bf16 it rounds one product less.
"""

from __future__ import annotations

from torch import Tensor

from cbtrain.kernels.runtime import Build, Traffic, build_of, on_device_of, tl, triton

Heads = tuple[Tensor, Tensor]
"""Queries ``[T, heads, head_dim]`` and keys ``[T, kv_heads, head_dim]``, or their gradients."""


def rope_reference(heads: Heads, cos: Tensor, sin: Tensor, *, back: bool = False, out: Heads | None = None) -> None:
    """Rotate queries and keys ``heads`` by angles of ``cos``, ``sin [T, head_dim / 2]``, in place or to ``out``; with
    ``back`` by the negated angles."""
    for x, to in zip(heads, out or heads, strict=True):
        if out is not None:
            to.copy_(x)
        _rotate(to, cos, -sin if back else sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    half = x.shape[-1] // 2
    first, second, cos, sin = x[..., :half], x[..., half:], cos[:, None], sin[:, None]
    turned = first * sin
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).add_(turned)


def rope(heads: Heads, cos: Tensor, sin: Tensor, *, back: bool = False, out: Heads | None = None) -> None:
    """Do the same as :func:`rope_reference`, in one launch. The numbers of a head lie side by side in ``out``, or in
    ``heads`` if there is none."""
    q, k = heads
    to_q, to_k = out or heads
    if out is not None:  # of gradients; the back-ends of attention hand them out as they are needed here
        q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in heads)
    if any(x.stride(-1) != 1 for x in (q, k, to_q, to_k, cos, sin)):
        raise ValueError("heads whose numbers do not lie side by side cannot be rotated")
    tokens, half, blocks = len(q), cos.shape[-1], _blocks(q.shape[1], k.shape[1], cos.shape[-1])
    with on_device_of(q):
        _turn[(-(-tokens // blocks["TOKENS"]),)](
            q,
            k,
            to_q,
            to_k,
            cos,
            sin,
            tokens,
            q.shape[1],
            k.shape[1],
            half,
            *(stride for x in (q, k, to_q, to_k) for stride in x.stride()[:2]),
            cos.stride(0),
            sin.stride(0),
            BACK=back,
            **blocks,
            num_warps=WARPS,
        )


WARPS = 4
NUMBERS = 2048
"""Numbers of half the query heads of a program at least: tokens with few heads are taken several at a time."""


def _blocks(heads: int, kv_heads: int, half: int) -> dict[str, int]:
    """Return the sides of the blocks that a program takes."""
    q, k, columns = (triton.next_power_of_2(size) for size in (heads, kv_heads, half))
    return {"TOKENS": max(1, NUMBERS // (max(q, k) * columns)), "Q_HEADS": q, "K_HEADS": k, "HALF": columns}


if triton is not None:
    # More than seven parameters: two inputs, two outputs, the angles, sizes, strides and blocks.
    @triton.jit(do_not_specialize=["tokens"])
    def _turn(  # type: ignore[no-untyped-def]
        Q,
        K,
        TO_Q,
        TO_K,
        COS,
        SIN,
        tokens,
        q_heads,
        k_heads,
        half,
        q_token,
        q_head,
        k_token,
        k_head,
        to_q_token,
        to_q_head,
        to_k_token,
        to_k_head,
        cos_token,
        sin_token,
        BACK: tl.constexpr,
        TOKENS: tl.constexpr,
        Q_HEADS: tl.constexpr,
        K_HEADS: tl.constexpr,
        HALF: tl.constexpr,
    ):
        token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)[:, None, None]
        column = tl.arange(0, HALF)[None, None, :]
        some = (token < tokens) & (column < half)
        cos = tl.load(COS + token * cos_token + column, some, 0.0).to(tl.float32)
        sin = tl.load(SIN + token * sin_token + column, some, 0.0).to(tl.float32)
        if BACK:
            sin = -sin
        head = tl.arange(0, Q_HEADS)[None, :, None].to(tl.int64)  # heads may lie first in memory
        q = Q + token * q_token + head * q_head + column
        to_q = TO_Q + token * to_q_token + head * to_q_head + column
        _turn_heads(q, to_q, half, cos, sin, some & (head < q_heads))
        head = tl.arange(0, K_HEADS)[None, :, None].to(tl.int64)
        k = K + token * k_token + head * k_head + column
        to_k = TO_K + token * to_k_token + head * to_k_head + column
        _turn_heads(k, to_k, half, cos, sin, some & (head < k_heads))

    @triton.jit
    def _turn_heads(X, TO, half, cos, sin, mask):  # type: ignore[no-untyped-def]
        dtype = TO.dtype.element_ty
        first, second = tl.load(X, mask, 0.0).to(tl.float32), tl.load(X + half, mask, 0.0).to(tl.float32)
        along = (first * cos).to(dtype).to(tl.float32) - (second * sin).to(dtype).to(tl.float32)
        across = (second * cos).to(dtype).to(tl.float32) + (first * sin).to(dtype).to(tl.float32)
        tl.store(TO, along.to(dtype), mask)
        tl.store(TO + half, across.to(dtype), mask)


def traffic(heads: int, kv_heads: int, head_dim: int, itemsize: int) -> dict[str, Traffic]:
    """Return for each pass the bytes for one token. Its cosines and sines are read from memory; at least, they would be
    made of its position. PyTorch passes over halves of the heads five times, and copies gradients first."""
    once = (heads + kv_heads) * head_dim * itemsize
    angles = head_dim * itemsize
    moved, needed = 2 * once + angles, 2 * once + 4
    return {
        "forward": Traffic(moved, needed, 6 * once + 4 * angles),
        "backward": Traffic(moved, needed, 8 * once + 6 * angles),
    }


MODELS = ((32, 8, 128), (28, 4, 128))
"""Heads, those of keys, and their size in Llama 3.1 8B and Mistral 7B, and in Qwen 2.5 7B."""


def builds() -> list[Build]:
    """Return every configuration that is launched for the widths of the models that the documentation names."""
    found = []
    for heads, kv_heads, head_dim in MODELS:
        for kind in ("fp32", "bf16"):
            arguments = dict.fromkeys(("Q", "K", "TO_Q", "TO_K", "COS", "SIN"), f"*{kind}")
            arguments |= dict.fromkeys(("tokens", "q_heads", "k_heads", "half"), "i32")
            strides = [f"{to}{x}_{of}" for to in ("", "to_") for x in "qk" for of in ("token", "head")]
            arguments |= dict.fromkeys([*strides, "cos_token", "sin_token"], "i32")
            blocks = _blocks(heads, kv_heads, head_dim // 2)
            unaligned = ["tokens", *(name for name, n in (("q_heads", heads), ("k_heads", kv_heads)) if n % 16)]
            found += [
                build_of("rope", _turn, arguments, {"BACK": back} | blocks, unaligned, WARPS) for back in (False, True)
            ]
    return found
