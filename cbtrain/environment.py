"""This machine: the device to use, versions, revision, peak memory, the time."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "deepspeed",
    "bitsandbytes",
    "triton",
    "aiohttp",
    "scipy",
    "numpy",
)


def now() -> str:
    """The time in UTC (ISO 8601), to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def quiet_openmp(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that make OpenMP's threads sleep soon when they wait, unless ``environment`` says otherwise.

    Threads that spin make a step up to 28 times slower as soon as another program takes one of few cores; threads that
    sleep at once make the small products of generation twice as slow (docs/log.md). They are read when torch is first
    imported.
    """
    if "OMP_WAIT_POLICY" in environment:
        return {}
    # GNU's OpenMP takes the count, some 300 microseconds; others know the policy only.
    return {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": environment.get("GOMP_SPINCOUNT", "10000")}


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(name: str) -> str:
    """Return the device ``name``; ``auto`` is CUDA if there is a GPU, else the CPU. Raises UserError if the device is
    not here."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError("no such device", where=name, hint="Use 'auto', 'cpu', 'cuda' or 'cuda:1'.") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError("this kind of device is not supported", where=name, hint="Use 'auto', 'cpu' or 'cuda'.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        hint = "Use 'auto' or 'cpu', or see `cbtrain doctor`."
        raise UserError(f"{torch.cuda.device_count()} CUDA devices are here", where=name, hint=hint)
    return name


def describe_environment() -> dict[str, Any]:
    """JSON-able facts for ``environment.json``; no user names, paths or host names."""
    torch = sys.modules.get("torch")  # not loaded: no model has run here
    device = "none: no model ran here"
    if torch is not None:
        device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return {
        "cbtrain": importlib.metadata.version("cbtrain"),
        "revision": _revision(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads() if torch else None,
        "device": device,
        "packages": {name: version_of(name) for name in PACKAGES},
    }


def peak_memory_gb() -> float:
    """Largest resident memory of this process plus that of its largest ended child, in GB (1e9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    process_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (process_peak + children) * unit / 1e9


def version_of(name: str) -> str | None:
    """Return the version of an installed package; None if it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The git commit of a checkout, with ``+changes`` where files differ from it; None outside one."""
    if not (Path(__file__).parent.parent / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed else commit


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
