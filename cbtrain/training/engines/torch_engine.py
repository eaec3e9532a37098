"""The plain PyTorch engine: one process, or several that sum their gradients.

Adapter gradients are small (some 40 million numbers for a 7B model), so one all-reduce a step serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cbtrain.model.decoder import Decoder
from cbtrain.tokens.pack import Pack
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.engine import State, StaticMemory, TrainingEngine, bytes_of, on_host
from cbtrain.training.loss import token_losses
from cbtrain.training.optimizers import make_optimizer, set_learning_rate


class TorchEngine(TrainingEngine):
    """Steps on fp32 numbers: those of the decoder itself, or masters of its parameters where these are bf16, whose
    gradients are then added up in fp32 too."""

    def __init__(self, decoder: Decoder, config: StageConfig) -> None:
        super().__init__(decoder, config)
        self.live = decoder.trainable_parameters()
        self.masters: dict[str, Tensor] = {name: _master(p) for name, p in self.live.items()}
        self.rounded = [(p, self.masters[name]) for name, p in self.live.items() if self.masters[name] is not p]
        betas = (config.beta1, config.beta2)
        if decoder.adapter is not None:
            self.own = decoder.adapter.own_training(config.learning_rate, betas, config.weight_decay)
        self.optimizer: Any = make_optimizer(self.masters, config) if self.own is None else self.own.optimizer
        self.lockstep = self.own is not None and self.own.lockstep

    def token_losses(self, pack: Pack) -> tuple[Tensor, Tensor]:
        with self.forward_context():
            return token_losses(self.decoder, pack)

    def backward(self, loss: Tensor) -> None:
        loss.backward()
        for parameter, master in self.rounded:
            if parameter.grad is not None:
                wide = parameter.grad.float()
                master.grad = wide if master.grad is None else master.grad.add_(wide)
                parameter.grad = None

    def step(self, learning_rate: float) -> tuple[Tensor, bool]:
        self._sum_gradients()
        norm = nn.utils.clip_grad_norm_(self.masters.values(), self.config.clip_norm)
        finite = bool(torch.isfinite(norm))
        if finite:
            set_learning_rate(self.optimizer, learning_rate)
            self.optimizer.step()
            for parameter, master in self.rounded:
                parameter.data.copy_(master)
            if self.own is not None:
                self.own.end_step(clipped_by(norm, self.config.clip_norm))
        self.discard()
        return norm, finite

    def discard(self) -> None:
        if self.own is not None:
            self.own.discard()
        for tensor in (*self.masters.values(), *self.live.values()):
            tensor.grad = None

    def parameters(self) -> State:
        if self.rank:
            return {}
        return {name: on_host(tensor) for name, tensor in {**self.masters, **self.fixed()}.items()}

    def optimizer_state(self) -> State:
        if self.rank:
            return {}
        return {
            f"{name}/{key}": on_host(torch.as_tensor(value))
            for name, master in self.masters.items()
            for key, value in self.optimizer.state.get(master, {}).items()
        }

    @torch.no_grad()
    def load(self, parameters: Mapping[str, Tensor], optimizer: Mapping[str, Tensor] | None) -> None:
        for name, master in self.masters.items():
            master.copy_(parameters[name])
        for parameter, master in self.rounded:
            parameter.copy_(master)
        for name, tensor in self.fixed().items():
            tensor.copy_(parameters[name])
        if optimizer is None:
            return
        self.optimizer.state.clear()
        places = {name: (g, p) for g, p, name in self._places()}
        for key, value in optimizer.items():
            name, _, leaf = key.rpartition("/")
            self._set_state(name, leaf, value, *places[name])
        if self.own is not None:
            self.own.resume()

    def _places(self) -> list[tuple[int, int, str]]:
        """Return group, index in it and name of every tensor that the optimizer steps on."""
        names = {id(master): name for name, master in self.masters.items()}
        groups = enumerate(self.optimizer.param_groups)
        return [(g, p, names[id(t)]) for g, group in groups for p, t in enumerate(group["params"])]

    def _set_state(self, name: str, leaf: str, value: Tensor, group: int, index: int) -> None:
        master = self.masters[name]
        state = self.optimizer.state[master]
        if not hasattr(self.optimizer, "init_state"):
            on_cpu = leaf == "step" and not self.optimizer.param_groups[group].get("fused")
            state[leaf] = value.clone() if on_cpu else value.to(master.device, copy=True)
            return
        # bitsandbytes: moments that may be paged out have buffers of a kind of their own.
        if not state:
            self.optimizer.check_overrides()
            self.optimizer.initialized = True
            self.optimizer.init_state(self.optimizer.param_groups[group], master, group, index)
            state = self.optimizer.state[master]
        if isinstance(state[leaf], Tensor):
            state[leaf].copy_(value)
        else:
            state[leaf] = value.item()

    def static_memory(self) -> StaticMemory:
        states = [v for state in self.optimizer.state.values() for v in state.values()]
        trained = list(self.masters.values())
        adapters = bytes_of(*self.live.values(), *self.fixed().values()) if self.decoder.adapter else 0
        extra = bytes_of(*(master for _, master in self.rounded))
        return StaticMemory(adapters, 4 * sum(t.numel() for t in trained), bytes_of(*states) + extra)

    def close(self) -> None:
        if self.own is not None:
            self.own.close()

    def _sum_gradients(self) -> None:
        if self.world == 1:
            return
        # A rank whose packs had nothing supervised has no gradients, and must still take part.
        trained = list(self.masters.values())
        gradients = [t.grad if t.grad is not None else torch.zeros_like(t) for t in trained]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for tensor, part in zip(trained, flat.split([g.numel() for g in gradients]), strict=True):
            tensor.grad = part.view_as(tensor)


def clipped_by(norm: Tensor, largest: float) -> float:
    """Return what gradients of this ``norm`` are multiplied by to be clipped to ``largest``, as PyTorch does it."""
    return min(1.0, largest / (float(norm) + 1e-6))


def _master(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype == torch.float32:
        return parameter
    return nn.Parameter(parameter.detach().float())
