"""DeepSpeed: ZeRO shards optimizer states (1), gradients too (2), all weights too (3) over the ranks
(Rajbhandari et al. 2020, arXiv 1910.02054).

Up to stage 2 DeepSpeed is given the trained parameters alone: it neither casts nor moves the frozen base, which may be
NF4. In stage 3 it is given the decoder, since it fetches each layer's weights when they are needed.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from cbtrain.errors import UserError
from cbtrain.model.decoder import Decoder
from cbtrain.tokens.pack import Pack
from cbtrain.training import distributed
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.training.engines.deepspeed_config import deepspeed_config
from cbtrain.training.engines.engine import State, StaticMemory, TrainingEngine, bytes_of, on_host
from cbtrain.training.loss import token_losses
from cbtrain.training.optimizers import make_optimizer, set_learning_rate

MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ()}


class DeepSpeedEngine(TrainingEngine):
    """ZeRO stage 0 to 3 with a plain AdamW or SGD of PyTorch."""

    lockstep = True

    def __init__(self, decoder: Decoder, config: StageConfig, runtime: RuntimeConfig) -> None:
        deepspeed = require_deepspeed(decoder.device)
        distributed.join(runtime.timeout_minutes, alone=True)
        super().__init__(decoder, config)
        self.stage = int(runtime.zero_stage)
        self.live = decoder.trainable_parameters()
        # Adapters are fp32 whatever the base is, except in stage 3: it has one dtype, and its optimizer fp32 masters.
        dtype = decoder.dtype if self.stage == 3 else next(iter(self.live.values())).dtype
        if dtype == torch.bfloat16 and self.stage < 2:
            hint = "Set training.zero_stage to 2 or 3, or model.weights to fp32."
            raise UserError("bf16 weights are trained in ZeRO stages 2 and 3", where="training.zero_stage", hint=hint)
        for parameter in self.live.values():
            parameter.data = parameter.data.to(dtype)
        optimizer = make_optimizer(self.live, config)
        if self.stage == 0:
            optimizer.register_step_pre_hook(self._clip_or_drop)
        self.engine, *_ = deepspeed.initialize(
            model=_TokenLosses(decoder, whole=self.stage == 3),
            optimizer=optimizer,
            model_parameters=list(self.live.values()),
            config=deepspeed_config(self.stage, dtype, config.clip_norm),
            dist_init_required=False,
        )
        self._norm = torch.zeros(())
        self._init_moments()

    def token_losses(self, pack: Pack) -> tuple[Tensor, Tensor]:
        with self.forward_context():
            return cast("tuple[Tensor, Tensor]", self.engine(pack))

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss * self.world, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> tuple[Tensor, bool]:
        set_learning_rate(self.engine.basic_optimizer, learning_rate)
        self.engine.step()
        norm = self._norm if self.stage == 0 else torch.as_tensor(self.engine.get_global_grad_norm())
        return norm, bool(torch.isfinite(norm))

    def discard(self) -> None:
        self.engine.zero_grad()

    @torch.no_grad()
    def parameters(self) -> State:
        full = {name: self._full(p) for name, p in self.live.items()} if self.stage else self.live
        return self._on_leader({**full, **self.fixed()})

    @torch.no_grad()
    def optimizer_state(self) -> State:
        state: State = {}
        for name, parameter in self.live.items():
            for key in MOMENTS[self.config.optimizer]:
                state.update(self._on_leader({f"{name}/{key}": self._full(parameter, key)}))
            if MOMENTS[self.config.optimizer]:
                state.update(self._on_leader({f"{name}/step": self._steps()}))
        return state

    @torch.no_grad()
    def load(self, parameters: Mapping[str, Tensor], optimizer: Mapping[str, Tensor] | None) -> None:
        for name, parameter in self.live.items():
            self._set(parameter, parameters[name])
            for key in MOMENTS[self.config.optimizer] if optimizer is not None else ():
                zeros = torch.zeros_like(parameters[name])  # a run that had not stepped yet has no moments
                self._set(parameter, cast(Mapping[str, Tensor], optimizer).get(f"{name}/{key}", zeros), key)
        for name, tensor in self.fixed().items():
            tensor.copy_(parameters[name])
        if optimizer is not None:
            steps = next((value for key, value in optimizer.items() if key.endswith("/step")), torch.zeros(()))
            for state in self._states():
                state["step"].copy_(steps)

    def static_memory(self) -> StaticMemory:
        numbers = sum(getattr(p, "ds_numel", p.numel()) for p in self.live.values())
        size = next(iter(self.live.values())).element_size()
        share = self.world if self.stage == 3 else 1
        states = [value for state in self._states() for value in state.values()]
        masters = self._flat() if self.stage else []
        gradients = 4 * numbers // (self.world if self.stage >= 2 else 1)
        adapters = size * numbers // share + bytes_of(*self.fixed().values()) if self.decoder.adapter else 0
        return StaticMemory(adapters, gradients, bytes_of(*states, *masters))

    def close(self) -> None:
        self.engine.destroy()

    def _clip_or_drop(self, optimizer: Any, *_: Any) -> None:
        """Before an update of stage 0, which has no ZeRO optimizer around it: clip, and leave nothing to update with
        if the gradient is not finite."""
        self._norm = nn.utils.clip_grad_norm_(self.live.values(), self.config.clip_norm)
        if not bool(torch.isfinite(self._norm)):
            for parameter in self.live.values():
                parameter.grad = None

    def _flat(self) -> list[Tensor]:
        """Return the fp32 numbers that this rank's optimizer steps on."""
        if self.stage == 0:
            return list(self.live.values())
        zero = self.engine.optimizer
        name = "fp32_partitioned_groups_flat" if self.stage == 3 else "single_partition_of_fp32_groups"
        return list(getattr(zero, name))

    def _states(self) -> list[dict[str, Tensor]]:
        return [self.engine.basic_optimizer.state[flat] for flat in self._flat()]

    def _init_moments(self) -> None:
        """Make the optimizer's state now, so that it can be filled before the first step."""
        for flat in self._flat():
            state = self.engine.basic_optimizer.state[flat]
            for key in MOMENTS[self.config.optimizer]:
                state[key] = torch.zeros_like(flat)
            if MOMENTS[self.config.optimizer]:
                state["step"] = torch.zeros((), device=flat.device)
        if self.stage in (1, 2):
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _steps(self) -> Tensor:
        return self._states()[0]["step"]

    def _full(self, parameter: nn.Parameter, key: str | None = None) -> Tensor:
        """Return the whole tensor of ``parameter`` in fp32, or of its moment ``key``, gathered from every rank."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self.stage == 0:
            return parameter if key is None else cast(Tensor, self.engine.basic_optimizer.state[parameter][key])
        whole = safe_get_full_fp32_param(parameter) if key is None else safe_get_full_optimizer_state(parameter, key)
        return cast(Tensor, whole)

    def _set(self, parameter: nn.Parameter, value: Tensor, key: str | None = None) -> None:
        """Put this rank's share of ``value`` in its place; DeepSpeed's own setter for stage 3 wants shares of like
        size."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        value = value.to(self.decoder.device, torch.float32)
        if self.stage == 0:
            target = parameter.data if key is None else self.engine.basic_optimizer.state[parameter][key]
            target.copy_(value)
        elif self.stage == 3:
            partition, _ = self.engine.optimizer._get_fp32_opt_state_partition(parameter, False, key)
            begin = min(value.numel(), partition.numel() * self.rank)
            share = value.flatten()[begin : begin + partition.numel()]
            partition[: share.numel()].copy_(share)
            if key is None:
                cast(Any, parameter).ds_tensor.data[: share.numel()].copy_(share)
        elif key is None:
            safe_set_full_fp32_param(parameter, value)
            parameter.data.copy_(value)
        else:
            safe_set_full_optimizer_state(parameter, value, key)

    def _on_leader(self, tensors: Mapping[str, Tensor]) -> State:
        return {} if self.rank else {name: on_host(tensor) for name, tensor in tensors.items()}


class _TokenLosses(nn.Module):
    """The losses as the module that DeepSpeed wants; it shows DeepSpeed all of the decoder, or what is trained."""

    def __init__(self, decoder: Decoder, *, whole: bool) -> None:
        super().__init__()
        self._decoder = (decoder,)  # a tuple hides it from the register of modules
        if whole:
            self.decoder = decoder
        else:
            self.trained = nn.ParameterList(decoder.trainable_parameters().values())

    def forward(self, pack: Pack) -> tuple[Tensor, Tensor]:
        return token_losses(self._decoder[0], pack)


def require_deepspeed(device: torch.device) -> ModuleType:
    """Return the package, imported so that it compiles nothing. Raises UserError if it is not installed."""
    os.environ.setdefault("DS_BUILD_OPS", "0")
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Older names of torch's collectives, which DeepSpeed calls in every step.
    warnings.filterwarnings("ignore", r"`?torch\.distributed\.", FutureWarning)
    try:
        import deepspeed
    except ImportError:
        hint = "Install it (`pip install deepspeed`, Linux only), or set training.engine=torch."
        raise UserError(
            "the DeepSpeed engine needs the package deepspeed", where="training.engine", hint=hint
        ) from None
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # or it compiles one for CPUs; gloo serves
    module: ModuleType = deepspeed
    return module
