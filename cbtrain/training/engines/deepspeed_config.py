"""DeepSpeed's config: every setting that affects a number is set here, whatever the default of a release is."""

from __future__ import annotations

from typing import Any

import torch

BUCKET = 50_000_000
"""Numbers in a message between ranks. Adapters of 7B models fill one."""


def deepspeed_config(stage: int, dtype: torch.dtype, clip_norm: float) -> dict[str, Any]:
    """Return the settings for ZeRO ``stage`` over parameters of ``dtype``.

    The loss comes divided by the whole step's weights, so nothing here divides by accumulation or ranks: the caller
    multiplies by the number of ranks what ``mean`` divides by it again (``sum`` is not for every stage).
    """
    bf16 = dtype == torch.bfloat16
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # our call of step() ends an optimizer step, whatever its size
        "gradient_allreduce_op": "mean",
        "prescale_gradients": False,
        "communication_data_type": "fp32",  # by default gradients of bf16 weights are summed over ranks in bf16
        # Stage 0 clips in our hook, which also looks for infinities.
        "gradient_clipping": clip_norm if stage else 0.0,
        "data_types": {"grad_accum_dtype": "fp32"},
        "bf16": {"enabled": bf16, "check_grad_overflow": True},
        "fp16": {"enabled": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": stage,
            "contiguous_gradients": True,
            "overlap_comm": False,  # refused with caller-owned accumulation in stages 0 and 1
            "reduce_scatter": True,
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
            "round_robin_gradients": False,
            **({"stage3_prefetch_bucket_size": BUCKET, "stage3_param_persistence_threshold": 0} if stage == 3 else {}),
        },
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
        "dump_state": False,
    }
