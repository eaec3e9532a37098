"""Where Triton kernels can run, and what is compiled of them.

Kernels import ``triton`` and ``tl`` from here: both are None where Triton is not installed, and then only the PyTorch
references beside the kernels exist. With ``TRITON_INTERPRET=1`` (set before the import) kernels run on CPUs in
Triton's interpreter, slowly: for tests.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton is there for Linux only
    triton = tl = None

NAMES = ("rms_norm", "rope", "swiglu", "cross_entropy", "nf4")
"""The kernels that the decoder uses: the modules of this package, and the keys of ``model.kernels``."""

INTERPRETED = triton is not None and bool(triton.knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter, on CPUs."""

LEAST_CAPABILITY = (8, 0)
"""The first GPUs that compute in bf16."""


def obstacle(device: torch.device) -> str | None:
    """Return why kernels cannot run on ``device``, or None."""
    if triton is None:
        return "Triton is not installed"
    if device.type != "cuda":
        return None if INTERPRETED and device.type == "cpu" else f"they run on CUDA, this is {device.type!r}"
    if INTERPRETED:
        return "TRITON_INTERPRET=1 is set, which is for CPUs"
    if not torch.cuda.is_available():
        return "no CUDA device is here"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return "compute capability {}.{}, less than {}.{}".format(*capability, *LEAST_CAPABILITY)
    return _missing_for_launches()


def _missing_for_launches() -> str | None:
    """Return what Triton lacks to compile the module in C with which it launches kernels, or None."""
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    if not any(map(shutil.which, compilers)):
        return f"no C compiler ({' or '.join(compilers)}), which Triton needs to launch kernels"
    scheme = sysconfig.get_default_scheme()
    scheme = "posix_prefix" if scheme == "posix_local" else scheme  # as Triton asks, for Debian's Python
    if not Path(sysconfig.get_paths(scheme)["include"], "Python.h").is_file():
        return "no Python.h (Debian: python3-dev), which Triton needs to launch kernels"
    return None


def on_device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Return a context in which kernels are launched on the device of ``tensor``: Triton takes the current one."""
    context: AbstractContextManager[None] = torch.cuda.device_of(tensor)  # nothing for a tensor on a CPU
    return context


@dataclass(frozen=True, slots=True)
class Build:
    """One configuration in which a kernel is launched, as it is compiled without a GPU.

    ``kernel`` is a name of :data:`NAMES`, ``function`` the jitted function. ``signature`` gives the type of each of its
    arguments (``*bf16``, ``i32``, ``constexpr``), ``constants`` the values of those that are ``constexpr``.
    ``aligned`` are the places of arguments that are multiples of 16. ``warps`` and ``stages`` are those of the launch.
    ``fusion`` is off where ``a * b + c`` must be rounded twice.
    """

    kernel: str
    function: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: tuple[int, ...]
    warps: int
    stages: int = 3
    fusion: bool = True


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of memory for one unit of work (a token, a supervised token, a weight): those that a kernel moves, those
    that must be moved, and those that PyTorch's operations move in its place."""

    moved: float
    needed: float
    plain: float


def build_of(
    kernel: str,
    function: Any,
    arguments: Mapping[str, str],
    constants: Mapping[str, Any],
    unaligned: Collection[str],
    warps: int,
    stages: int = 3,
) -> Build:
    """Return the :class:`Build` of ``function`` whose ``arguments`` have these types; those in ``constants``, and
    further ones, are compiled with the values there. All but the ``unaligned`` are multiples of 16."""
    signature = dict(arguments) | dict.fromkeys(constants, "constexpr")
    aligned = [n for n, name in enumerate(signature) if name not in unaligned and name not in constants]
    return Build(kernel, function, signature, dict(constants), tuple(aligned), warps, stages)
