"""``cbtrain doctor``: check what this machine can run, and how to fix the rest."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from packaging.version import Version

from cbtrain.cli.exit_codes import DONE, FOUND
from cbtrain.cli.parser import Commands, add_command, leading_console

if TYPE_CHECKING:
    from rich.console import Console

State = Literal["ok", "absent", "problem"]
MARKS = {"ok": "[green]ok[/]", "absent": "[yellow]absent[/]", "problem": "[red]problem[/]"}
GATED = "meta-llama/Llama-3.1-8B-Instruct"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ``absent`` costs a feature, ``problem`` stops the study."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def add(commands: Commands) -> None:
    text = "check what this machine can run, and how to fix the rest"
    add_command(commands, "doctor", lambda parsed: show(leading_console()), text)


def examine() -> list[Finding]:
    """Return the findings of all checks, in order. No check raises."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _torch,
        _cuda,
        _attention,
        _kernels,
        _nf4,
        _distributed,
        _deepspeed,
        _memory,
        _disk,
        _hub,
    ]
    findings = []
    for check in checks:
        try:
            findings.append(check())
        except Exception as error:  # a broken installation must still give a table
            name = check.__name__.removeprefix("_")
            findings.append(Finding(name, "problem", f"{type(error).__name__}: {error}", "Run `make install` again."))
    return findings


def show(console: Console) -> int:
    """Print the findings; the exit status is 1 if one stops the study."""
    from rich.table import Table

    table = Table(title="cbtrain doctor", title_justify="left")
    for column in ("check", "state", "found", "remedy"):
        table.add_column(column, overflow="fold")
    findings = examine()
    for finding in findings:
        table.add_row(finding.name, MARKS[finding.state], finding.detail, finding.remedy)
    console.print(table)
    return FOUND if any(finding.state == "problem" for finding in findings) else DONE


def _python() -> Finding:
    good = sys.version_info >= (3, 10)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", "ok" if good else "problem", detail, "" if good else "Install Python 3.10 or later.")


def _torch() -> Finding:
    import torch

    good = Version(torch.__version__).release >= (2, 11)
    detail = f"{torch.__version__}, {torch.get_num_threads()} threads"
    return Finding("torch", "ok" if good else "problem", detail, "" if good else "pip install 'torch>=2.11'")


def _cuda() -> Finding:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        remedy = "Check the driver with nvidia-smi." if built else 'Choose a CUDA build: make install TORCH="torch==…"'
        return Finding("CUDA", "absent", f"built for CUDA {built}" if built else "CPU build of torch", remedy)
    device = torch.cuda.get_device_properties(0)
    detail = f"{torch.cuda.device_count()} × {device.name}, {device.total_memory / 2**30:.0f} GiB"
    return Finding("CUDA", "ok", detail)


def _attention() -> Finding:
    import torch

    from cbtrain.model.attention.packed import obstacles

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reasons = obstacles(device, torch.bfloat16, 128)
    serving = [name for name, reason in reasons.items() if reason is None]
    detail = "; ".join([f"{serving[0]} serves", *(f"{name}: {reason}" for name, reason in reasons.items() if reason)])
    slow = device.type == "cuda" and serving == ["sdpa"]
    remedy = "Take torch 2.11 or later, or pip install 'cbtrain[flash]'." if slow else ""
    return Finding("attention", "absent" if slow else "ok", detail, remedy)


def _kernels() -> Finding:
    import torch

    from cbtrain.model.kernel_choice import choose_kernels, kernel_text

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    missing = device.type == "cuda" and not choose_kernels("auto", device).names
    wants = "pip install triton (Linux), a C compiler and Python's headers (python3-dev)"
    remedy = f"On GPUs of capability 8.0 and later: {wants}." if missing else ""
    return Finding("Triton kernels", "absent" if missing else "ok", kernel_text("auto", device), remedy)


def _nf4() -> Finding:
    try:
        # It logs that an optional faster kernel for CPUs is not there.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        import bitsandbytes.functional as bnb
        import torch
    except ImportError:
        return Finding("NF4", "absent", "bitsandbytes is not installed", "pip install bitsandbytes (Linux)")
    weight = torch.randn(64, 64)
    packed, state = bnb.quantize_4bit(weight, quant_type="nf4")
    error = float((bnb.dequantize_4bit(packed, state) - weight).abs().mean())
    version = importlib.metadata.version("bitsandbytes")
    if error > 0.2:
        return Finding("NF4", "problem", f"bitsandbytes {version}: round trip is off by {error:.2f}", "Reinstall it.")
    return Finding("NF4", "ok", f"bitsandbytes {version}, mean round-trip error {error:.3f}")


def _distributed() -> Finding:
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        return Finding("distributed", "absent", "torch was built without it", "Use another torch build.")
    backends = [name for name in ("gloo", "nccl", "mpi") if getattr(dist, f"is_{name}_available")()]
    needed = "nccl" if torch.cuda.is_available() else "gloo"
    remedy = "" if needed in backends else f"Several processes need {needed}: use another torch build."
    return Finding("distributed", "absent" if remedy else "ok", ", ".join(backends) or "no back-end", remedy)


def _deepspeed() -> Finding:
    try:
        version = importlib.metadata.version("deepspeed")
    except importlib.metadata.PackageNotFoundError:
        return Finding("DeepSpeed", "absent", "not installed", "pip install 'deepspeed>=0.19.8' (Linux)")
    if Version(version) >= Version("0.19.8"):
        return Finding("DeepSpeed", "ok", f"{version}, for training.engine=deepspeed")
    remedy = "Older ones have silent gradient errors: pip install 'deepspeed>=0.19.8'"
    return Finding("DeepSpeed", "problem", f"{version}, for training.engine=deepspeed", remedy)


def _memory() -> Finding:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError):
        return Finding("memory", "ok", "not readable on this system")
    good = total >= 4
    detail = f"{free:.1f} of {total:.1f} GiB free, {os.cpu_count()} cores"
    remedy = "" if good else "The default study needs 4 GB: close other programs, or take a larger machine."
    return Finding("memory", "ok" if good else "problem", detail, remedy)


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 2**30
    good = free >= 1
    return Finding("disk", "ok" if good else "problem", f"{free:.1f} GiB free here", "" if good else "Free 1 GiB.")


def _hub() -> Finding:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    remedy = f"Accept its terms at https://huggingface.co/{GATED}, then run `hf auth login`."
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return Finding("hub access", "absent", "HF_HUB_OFFLINE is set", "Unset it to download models.")
    if huggingface_hub.get_token() is None:
        return Finding("hub access", "absent", "no token: gated bases (Llama) cannot be downloaded", remedy)
    try:
        huggingface_hub.HfApi().auth_check(GATED)
    except GatedRepoError:
        return Finding("hub access", "absent", f"no access to {GATED}", remedy)
    except Exception as error:  # no network, proxies, a changed API: all mean "cannot tell"
        remedy = "Check the network, or name model folders instead of hub ids."
        return Finding("hub access", "absent", f"the hub does not answer ({type(error).__name__})", remedy)
    return Finding("hub access", "ok", f"{GATED} can be downloaded")
