"""Triton kernels beside plain PyTorch and beside the memory's speed.

``python launch/benchmark.py kernels [--device cuda] [--json FILE] [--only KERNEL,…]``

Each pass of each kernel runs at the widths of Llama 3.1 8B and Qwen 2.5 7B in bf16 (cross-entropy also with the
vocabulary of Mistral 7B v0.3). *Limit* is the time in which the bytes that must move are moved at the speed of a copy
of 1 GiB, measured first in the same process. No time is printed of a kernel whose results are not those of its
reference in PyTorch: the row says so, and the command ends with status 1. Times are medians of 0.1 s of launches with
an empty second-level cache; the file has the 20 % and 80 % quantiles too. The whole takes less than two minutes.

``--json FILE`` is written anew after each row. With ``--only`` rows of other kernels that FILE holds of the same device
and versions are kept. Without CUDA the command ends with status 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.kernel_cases import Case, Sizes, Tensors, cases
from cbtrain.environment import describe_environment, now, version_of
from cbtrain.errors import UserError
from cbtrain.files import write_atomic
from cbtrain.kernels.runtime import NAMES, obstacle

DEVICE = torch.device("cuda")
COPIED = 2**30
CHECKED_TOKENS = 64
TOLERANCE = 0.01
"""Of the root mean square of what a kernel computes: rounding to bf16 gives 0.002."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmark.py kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda"])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--only", metavar="KERNEL,…", help=f"of {', '.join(NAMES)}")
    parsed = parser.parse_args(arguments)
    try:
        names = _named(parsed.only)
        if parsed.json and not parsed.json.parent.is_dir():
            raise UserError("its folder does not exist", where=f"--json {parsed.json}", hint="Make it first.")
        kept = _earlier(parsed.json, names)
    except UserError as error:
        sys.exit(str(error))
    reason = obstacle(DEVICE) if torch.cuda.is_available() else "this machine has no CUDA device"
    if reason:
        print(
            f"benchmark.py kernels needs a GPU: {reason}; docs/kernels.md has the bytes of each kernel", file=sys.stderr
        )
        sys.exit(2)
    sys.exit(0 if _measure(names, kept, parsed.json) else 1)


def _named(only: str | None) -> list[str]:
    wanted = only.split(",") if only else list(NAMES)
    if unknown := [name for name in wanted if name not in NAMES]:
        raise UserError(f"no such kernels: {', '.join(unknown)}", where="--only", hint=f"Kernels: {', '.join(NAMES)}.")
    return wanted


def _earlier(file: Path | None, names: list[str]) -> list[dict[str, Any]]:
    """Return the rows of other kernels than ``names`` in ``file``. Raises UserError if it holds something else."""
    if file is None or not file.exists():
        return []
    try:
        return [row for row in json.loads(file.read_text()) if row["kernel"] not in names and row["setup"]]
    except (ValueError, TypeError, KeyError):
        hint = "Name another file: this one would be overwritten."
        raise UserError("it is not a file of this benchmark", where=f"--json {file}", hint=hint) from None


def _measure(names: list[str], kept: list[dict[str, Any]], file: Path | None) -> bool:
    """Measure and print row by row; return whether all is well."""
    speed = _copy_speed()
    setup = {"device": torch.cuda.get_device_name(DEVICE), "torch": torch.__version__, "triton": version_of("triton")}
    revision = describe_environment()["revision"]
    rows = [row for row in kept if row["setup"] == setup]
    print(f"{setup['device']}, torch {setup['torch']}, triton {setup['triton']}, at {revision}")
    print(f"a copy of 1 GiB moves {speed / 1e12:.2f} TB/s")
    print(f"{'kernel':38} {'model':10} {'kernel':>9} {'PyTorch':>9} {'times':>6} {'limit':>9} {'of limit':>8}")
    for case, small in _chosen(names):
        row = {"kernel": case.kernel, "pass": case.what, "model": case.model, "units": case.units, "unit": case.unit}
        row |= {"setup": setup, "revision": revision, "written": now(), "copy_bytes_per_second": speed}
        row |= _row(case, small, speed)
        rows.append(row)
        print(_line(row), flush=True)
        if file:
            write_atomic(file, json.dumps(rows, indent=2) + "\n")
    return all(row["status"] == "measured" for row in rows)


def _chosen(names: list[str]) -> Iterator[tuple[Case, Case]]:
    """Yield each case to measure, and the same with few tokens to check it."""
    for model in ("llama-8b", "qwen-7b", "mistral-7b"):
        for case, small in zip(cases(Sizes(model)), cases(Sizes(model, CHECKED_TOKENS)), strict=True):
            # Mistral's layers have the widths of Llama's.
            if case.kernel in names and (model != "mistral-7b" or case.kernel == "cross_entropy"):
                yield case, small


def _row(case: Case, small: Case, speed: float) -> dict[str, Any]:
    try:
        error = deviation(small, DEVICE, torch.bfloat16)
        if not error <= TOLERANCE:  # NaN too
            return {"status": "wrong", "reason": f"results are {error:.2g} from those of the reference"}
        given = case.make(DEVICE, torch.bfloat16)
        ours, plain = _milliseconds(lambda: case.ours(*given)), _milliseconds(lambda: case.plain(*given))
    except (RuntimeError, ValueError) as failure:  # out of memory, a launch that is refused
        return {"status": "failed", "reason": str(failure).splitlines()[0]}
    limit = 1e3 * case.units * case.traffic.needed / speed
    found = {"status": "measured", "ms": ours, "plain_ms": plain, "limit_ms": limit}
    return found | {"moved_bytes": case.units * case.traffic.moved, "error": error}


def deviation(case: Case, device: torch.device, dtype: torch.dtype) -> float:
    """Return the root mean square of the difference between the case's kernel and its reference, relative to that of
    the reference: the largest of all outputs."""
    given = case.make(device, dtype)
    ours = case.ours(*_copied(given))
    right = (case.reference or case.plain)(*_copied(given))
    pairs = [(one.double(), other.double()) for one, other in zip(ours, right, strict=True)]
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


def _copied(given: Tensors) -> Tensors:
    return tuple(one.clone() if isinstance(one, torch.Tensor) else one for one in given)


def _copy_speed() -> float:
    """Return the bytes a second that a copy reads and writes."""
    source = torch.empty(COPIED, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * COPIED / (1e-3 * _milliseconds(lambda: target.copy_(source))[1])


def _milliseconds(run: Callable[[], Any]) -> list[float]:
    """Return the 20 %, 50 % and 80 % quantiles of the time of ``run`` on the GPU."""
    from triton.testing import do_bench

    quantiles: list[float] = do_bench(run, warmup=25, rep=100, quantiles=[0.2, 0.5, 0.8])
    return quantiles


def _line(row: dict[str, Any]) -> str:
    title = f"{row['kernel'] + ': ' + row['pass']:38} {row['model']:10}"
    if row["status"] != "measured":
        return f"{title} {row['status']}: {row['reason']}"
    ours, plain, limit = row["ms"][1], row["plain_ms"][1], row["limit_ms"]
    return f"{title} {ours:6.3f} ms {plain:6.3f} ms {plain / ours:5.1f}x {limit:6.3f} ms {limit / ours:8.0%}"
