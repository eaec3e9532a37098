"""The most a device can compute: the denominator of MFU and HFU, which always carries its name."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import lru_cache

import torch

DATA_SHEETS: dict[str, float] = {
    r"NVIDIA GB200": 2500,
    r"NVIDIA B200": 2250,
    r"NVIDIA GH200 .*": 989,
    r"NVIDIA H200": 989,
    r"NVIDIA H200 NVL": 835,
    r"NVIDIA H100 NVL": 835,
    r"NVIDIA H100 PCIe": 756,
    r"NVIDIA H100 (80|96)GB HBM3|NVIDIA H800": 989,
    r"NVIDIA H20": 148,
    r"(NVIDIA )?A[18]00[- ].*": 312,
    r"NVIDIA A30": 165,
    r"NVIDIA A40": 150,
    r"NVIDIA A10": 125,
    r"NVIDIA A10G": 70,
    r"NVIDIA L40S": 362,
    r"NVIDIA L40": 181,
    r"NVIDIA L20": 120,
    r"NVIDIA L4": 121,
    r"NVIDIA RTX A6000": 155,
    r"NVIDIA RTX 6000 Ada Generation": 364,
    r"NVIDIA GeForce RTX 5090": 210,
    r"NVIDIA GeForce RTX 4090": 165,
    r"NVIDIA GeForce RTX 4080": 97,
    r"NVIDIA GeForce RTX 3090": 71,
    r"NVIDIA GeForce RTX 3090 Ti": 80,
}
"""TFLOP/s of dense bf16 products with sums in fp32, by the whole name that CUDA gives (a regular expression): data
sheets print twice as much where they count skipped zeros. Laptop versions and slices of a GPU (MIG) have other names
and other speeds, and are measured."""

SECONDS = 0.3
"""Time that a measurement takes, at least three products apart."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Floating-point operations a second of one device, and where the number comes from."""

    flops: float
    name: str


def find_peak(device: torch.device, dtype: torch.dtype, tflops: float | None = None) -> Peak:
    """Return the peak of ``device`` in ``dtype``: ``tflops`` (TFLOP/s) if the user has set it, else its data sheet's
    number, else a measured product of matrices (:data:`SECONDS`)."""
    if tflops:
        return Peak(tflops * 1e12, f"{_rounded(tflops)} TFLOP/s (set by training.peak_tflops)")
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        sheet = data_sheet(name)
        # fp32 products may or may not run as TF32: no data sheet knows.
        if sheet and dtype in (torch.bfloat16, torch.float16):
            return Peak(sheet * 1e12, f"{sheet:g} TFLOP/s (data sheet, {name})")
        where = name
    else:
        where = f"this {device.type.upper()}, {torch.get_num_threads()} threads"
    measured = measured_flops(device, dtype)
    kind = str(dtype).removeprefix("torch.")
    return Peak(measured, f"{_rounded(measured / 1e12)} TFLOP/s (measured product of {kind} matrices on {where})")


def data_sheet(name: str) -> float | None:
    """Return the data sheet's TFLOP/s of the GPU that CUDA calls ``name``; None if it is not in the table."""
    if "MIG" in name:
        return None
    return next((tflops for pattern, tflops in DATA_SHEETS.items() if re.fullmatch(pattern, name)), None)


def measured_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return FLOP/s of the fastest of several products of square matrices, with the threads that there are now. It is
    measured once a process."""
    return _measured(device, dtype, torch.get_num_threads())


@lru_cache(maxsize=8)
@torch.inference_mode()
def _measured(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, begun, done = float("inf"), time.perf_counter(), 0
    while done < 3 or time.perf_counter() - begun < SECONDS:
        best = min(best, _seconds(a, b))
        done += 1
    return 2 * size**3 / best


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    started = time.perf_counter()
    _ = a @ b
    if a.device.type == "cuda":
        torch.cuda.synchronize(a.device)
    return time.perf_counter() - started


def _rounded(tflops: float) -> str:
    """Return two significant digits at least: 0.20, 1.4, 71, 989."""
    return f"{tflops:.{0 if tflops >= 10 else 1 if tflops >= 1 else 2}f}" if tflops >= 0.1 else f"{tflops:.2g}"
