"""The interface of every fine-tuning method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from cbtrain.model.adapters.own_training import OwnTraining


class AdaptedModule(nn.Module, ABC):
    """Changes what the module ``base`` of the decoder returns."""

    base: nn.Module

    @abstractmethod
    def adapt(self, x: Tensor, out: Tensor) -> Tensor:
        """Return the adapted output for inputs ``x [T, …]`` of which ``base`` returned ``out [T, …]``, in the dtype of
        ``out``, which stays as it is."""

    @abstractmethod
    def settings(self) -> str:
        """Return what its outputs depend on besides the base and its parameters."""


class Adapter(ABC):
    """A fine-tuning method attached to one decoder. It trains its own parameters, or the decoder's.

    Base weights are called by their parameter names, e.g. ``layers.0.self_attn.q_proj.weight``.
    """

    enabled: bool = True

    metadata: Mapping[str, str] = {}
    """Metadata of the files that it was loaded from."""

    @abstractmethod
    def describe(self) -> str:
        """Return the method and its sizes in a few words, for a model card."""

    @abstractmethod
    def initialize(self, seed: int) -> None:
        """Set its parameters for the start of training: the decoder's outputs are still those of the base."""

    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by name, in a fixed order."""

    @abstractmethod
    def base_parameters(self) -> list[nn.Parameter]:
        """Return the decoder's parameters without those that it has added."""

    @abstractmethod
    def changed(self) -> frozenset[str]:
        """Return the names of the base weights that it changes."""

    @abstractmethod
    def effective_weight(self, name: str, weight: Tensor) -> Tensor:
        """Return the base's weight ``name`` (its value ``weight``) with the adapter applied, fp32."""

    @abstractmethod
    def enable(self, enabled: bool) -> None:
        """Switch the adapter on or off in the forward pass."""

    @abstractmethod
    def save(
        self, folder: Path, *, base: str, metadata: Mapping[str, str], values: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write its files into an existing ``folder``; ``metadata`` goes into the headers of the weights. If
        ``values`` are given, by the names of :meth:`parameters`, they are written in place of its own."""

    @abstractmethod
    def read(self, folder: Path) -> dict[str, Tensor]:
        """Return what :meth:`save` has written to ``folder``, by the names of :meth:`parameters`."""

    @abstractmethod
    def load(self, tensors: Iterable[tuple[str, Tensor]], where: Path) -> None:
        """Set its parameters from ``tensors``, by their names in its files. Raises UserError if they do not fit."""

    @abstractmethod
    def remove(self) -> None:
        """Detach it: the decoder is the base again."""

    @abstractmethod
    def detach(self) -> dict[str, nn.Module]:
        """Detach it, and return by path the modules that compute its rows where several adapters share one decoder:
        an :class:`AdaptedModule` from the output of the base's module, any other in place of the base's module."""

    def prepare(  # noqa: B027 (most methods draw nothing)
        self, step: int, names: Sequence[str], cu_seqlens: Sequence[int]
    ) -> None:
        """Set the optimizer step and the documents of the next forward pass: methods that draw random numbers key them
        with these. Called before each forward pass of training."""

    def fixed(self) -> dict[str, Tensor]:
        """Return by name the tensors without which its parameters mean nothing and that no gradient changes: they are
        kept, saved and loaded together with the parameters, under other names than theirs."""
        return {}

    def own_training(self, rate: float, betas: tuple[float, float], decay: float) -> OwnTraining | None:
        """Return what the method does in training besides gradients, with a learning rate, betas and weight decay for
        its optimizer; None if it is trained by the stage's."""
        return None

    @property
    def dense_products(self) -> int:
        """Weights times products with all of them that the method adds to a forward and backward pass, each 2
        operations a token."""
        return 0
