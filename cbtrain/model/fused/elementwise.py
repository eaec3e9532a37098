"""What a layer computes between its matrix products: norms, rotation, activation and their gradients.

Each is a Triton kernel or its reference in plain PyTorch (:mod:`cbtrain.kernels`); both have the same arguments.
Results are written over what is not needed any more. The norms' weights are frozen: there is no gradient for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cbtrain.kernels.rms_norm import (
    inverse_rms,
    inverse_rms_reference,
    rms_norm,
    rms_norm_backward,
    rms_norm_backward_reference,
    rms_norm_reference,
)
from cbtrain.kernels.rope import rope, rope_reference
from cbtrain.kernels.swiglu import swiglu, swiglu_backward, swiglu_backward_reference, swiglu_reference
from cbtrain.model.kernel_choice import Kernels


class Elementwise:
    """The functions that ``kernels`` ask for. ``adds`` says that a norm's kernel should add the residual, which it
    does on its way; in plain PyTorch the product before it does so. ``plain`` says that there is no kernel here."""

    def __init__(self, kernels: Kernels) -> None:
        self.adds = kernels.rms_norm
        self.plain = not (kernels.rms_norm or kernels.rope or kernels.swiglu)
        self.norm: Callable[..., Any] = rms_norm if kernels.rms_norm else rms_norm_reference
        self.inverse_rms: Callable[..., Any] = inverse_rms if kernels.rms_norm else inverse_rms_reference
        self.norm_backward: Callable[..., None] = rms_norm_backward if kernels.rms_norm else rms_norm_backward_reference
        self.rotate: Callable[..., None] = rope if kernels.rope else rope_reference
        self.swiglu: Callable[..., Any] = swiglu if kernels.swiglu else swiglu_reference
        self.swiglu_backward: Callable[..., None] = swiglu_backward if kernels.swiglu else swiglu_backward_reference


PLAIN = Elementwise(Kernels())
