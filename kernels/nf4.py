"""A weight of four bits, unpacked in one launch: NF4 (Dettmers et al. 2023, QLoRA, arXiv 2305.14314, section 3).

Format of bitsandbytes: two codes a byte, the high one first; each 64 weights share a scale, which is fp32, or with
double quantization a byte: a number of a map of 256, times the fp32 scale of 256 such bytes, plus an offset for all.
bitsandbytes unpacks the scales into memory in two launches and the weights in a third. The results are equal bit for
bit: products and sums are rounded one by one (``enable_fp_fusion`` is off).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cbtrain.kernels.runtime import Build, Traffic, build_of, on_device_of, tl, triton

SCALED, NESTED = 64, 256
"""Weights that share a scale, and scales that share theirs."""

AT_ONCE, WARPS = 32, 4
"""Scales that a program takes, with the 1,024 bytes of their weights, and its warps."""


@dataclass(frozen=True)
class Packed:
    """``codes`` uint8 ``[ceil(n / 2)]`` of the ``shape`` (n weights); ``levels`` fp32 ``[16]``; ``scales`` fp32
    ``[ceil(n / 64)]``, or uint8 if ``nested`` holds their map fp32 ``[256]``, their scales fp32 ``[ceil(n / 16384)]``
    and their offset fp32 ``[]``. All on one device, without gaps."""

    codes: Tensor
    shape: torch.Size
    levels: Tensor
    scales: Tensor
    nested: tuple[Tensor, Tensor, Tensor] | None


def dequantize_reference(packed: Packed, dtype: torch.dtype) -> Tensor:
    """Return what :func:`dequantize` returns, in plain PyTorch."""
    scales = packed.scales
    if packed.nested:
        map_, outer, offset = packed.nested
        scales = map_[scales.long()] * outer.repeat_interleave(NESTED)[: len(scales)] + offset
    codes = packed.codes.flatten()
    levels = packed.levels[torch.stack([codes >> 4, codes & 15], 1).flatten().long()][: packed.shape.numel()]
    return (levels * scales.repeat_interleave(SCALED)[: len(levels)]).view(packed.shape).to(dtype)


def dequantize(packed: Packed, dtype: torch.dtype) -> Tensor:
    """Return the weight in ``dtype`` (fp32 or bf16) and its shape, unpacked by one Triton kernel."""
    out = torch.empty(packed.shape, dtype=dtype, device=packed.codes.device)
    count = out.numel()
    if count:
        nested = packed.nested or (packed.scales, packed.scales, packed.scales)  # not read
        with on_device_of(out):
            _dequantize[(triton.cdiv(count, SCALED * AT_ONCE),)](
                packed.codes,
                packed.levels,
                packed.scales,
                *nested,
                out,
                count,
                DOUBLE=packed.nested is not None,
                AT_ONCE=AT_ONCE,
                num_warps=WARPS,
                enable_fp_fusion=False,
            )
    return out


def traffic(itemsize: int) -> dict[str, Traffic]:
    """Return the bytes for one weight of ``itemsize`` bytes: codes and scales are read once, the weight written once.
    bitsandbytes writes scales of double quantization in fp32, adds the offset in place and reads them."""
    scale = 1 / SCALED
    single, double = 0.5 + 4 * scale + itemsize, 0.5 + scale + 4 * scale / NESTED + itemsize
    return {
        "double quantization": Traffic(double, double, double + (4 + 8 + 4) * scale),
        "single quantization": Traffic(single, single, single),
    }


def builds() -> list[Build]:
    """Return what is launched: fp32 and bf16 weights, with double quantization and without."""
    found = []
    for kind in ("bf16", "fp32"):
        for double in (True, False):
            arguments = {"CODES": "*u8", "LEVELS": "*fp32", "SCALES": "*u8" if double else "*fp32"}
            arguments |= dict.fromkeys(("MAP", "OUTER", "OFFSET"), "*fp32") | {"OUT": f"*{kind}", "count": "i32"}
            constants = {"DOUBLE": double, "AT_ONCE": AT_ONCE}
            build = build_of("nf4", _dequantize, arguments, constants, (), WARPS)
            found.append(replace(build, fusion=False))
    return found


if triton is not None:
    # More than seven parameters: six inputs, the output, its size and two constants.
    @triton.jit
    def _dequantize(  # type: ignore[no-untyped-def]
        CODES, LEVELS, SCALES, MAP, OUTER, OFFSET, OUT, count, DOUBLE: tl.constexpr, AT_ONCE: tl.constexpr
    ):
        first = tl.program_id(0).to(tl.int64) * AT_ONCE
        block = first + tl.arange(0, AT_ONCE)
        some = block * 64 < count
        if DOUBLE:
            number = tl.load(SCALES + block, some, 0).to(tl.int32)
            scale = tl.load(MAP + number) * tl.load(OUTER + block // 256, some, 0.0) + tl.load(OFFSET)
        else:
            scale = tl.load(SCALES + block, some, 0.0)

        byte = block[:, None] * 32 + tl.arange(0, 32)[None, :]
        codes = tl.load(CODES + byte, byte * 2 < count, 0).to(tl.int32)
        high = tl.load(LEVELS + (codes >> 4)) * scale[:, None]
        low = tl.load(LEVELS + (codes & 15)) * scale[:, None]
        weights = tl.interleave(high, low)  # [AT_ONCE, 64], the order in memory
        at = block[:, None] * 64 + tl.arange(0, 64)[None, :]
        tl.store(OUT + at, weights.to(OUT.dtype.element_ty), at < count)
