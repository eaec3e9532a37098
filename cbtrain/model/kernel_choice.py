"""Which Triton kernels a decoder uses (``model.kernels``), and why not the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cbtrain.errors import UserError
from cbtrain.kernels.runtime import INTERPRETED, NAMES, obstacle

Setting = str | Mapping[Any, str]
"""``auto``, ``off`` or ``on`` for all kernels, or by their names; those that are not named have ``auto``."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """Whether each kernel of :data:`cbtrain.kernels.runtime.NAMES` is used. The default is plain PyTorch."""

    rms_norm: bool = False
    rope: bool = False
    swiglu: bool = False
    cross_entropy: bool = False
    nf4: bool = False

    @property
    def names(self) -> list[str]:
        """The names of the kernels that are used, in the order of the fields."""
        return [name for name, used in asdict(self).items() if used]


def choose_kernels(setting: Setting, device: torch.device) -> Kernels:
    """Return the kernels to use on ``device``. Raises UserError, with the reason, if one that is ``on`` cannot run
    there."""
    reasons = why_not(setting, device)
    for name, choice in _by_name(setting).items():
        if choice == "on" and (reason := reasons[name]) is not None:
            hint = "Use auto, which computes in plain PyTorch where kernels cannot run."
            raise UserError(f"the kernel {name} cannot be used: {reason}", where="model.kernels", hint=hint)
    return Kernels(**{name: reason is None for name, reason in reasons.items()})


def why_not(setting: Setting, device: torch.device) -> dict[str, str | None]:
    """Return for each kernel why it is not used on ``device``, or None if it is."""
    missing = obstacle(device)
    without = "the interpreter is for tests" if INTERPRETED and missing is None else missing
    of_choice = {"off": "model.kernels is off", "on": missing, "auto": without}
    return {name: of_choice[choice] for name, choice in _by_name(setting).items()}


def kernel_text(setting: Setting, device: torch.device) -> str:
    """Return :func:`described_kernels` in one line, each reason once."""
    alike: dict[str, list[str]] = {}
    for name, state in described_kernels(setting, device).items():
        alike.setdefault(state, []).append(name)
    return "; ".join(f"{', '.join(names)}: {state}" for state, names in alike.items())


def described_kernels(setting: Setting, device: torch.device) -> dict[str, str]:
    """Return for each kernel ``serves``, or why it does not serve on ``device``."""
    return {name: reason or "serves" for name, reason in why_not(setting, device).items()}


def _by_name(setting: Setting) -> dict[str, str]:
    if isinstance(setting, str):
        return dict.fromkeys(NAMES, setting)
    return {name: setting.get(name, "auto") for name in NAMES}
