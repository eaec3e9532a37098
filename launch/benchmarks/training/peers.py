"""Rows ``peft``, ``liger`` and ``unsloth``: the others' models in a plain loop, one session a micro-batch.

The loss of a step is the sum over its supervised tokens ÷ their number, as ours. A loop of one's own is free to project
only supervised rows to the vocabulary (``logits_to_keep``), so ``peft`` does: it is faster, and takes less memory, than
``model(labels=…)``, which projects all of them. Liger and Unsloth have fused losses behind ``labels``, which are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.training.rows import ALPHA, BETAS, CLIP, DECAY, RANK, RATE
from benchmarks.training.run import ADAPTER, Run, StepClock, trained
from benchmarks.training.sessions import BASE
from cbtrain.model.adapters.peft_format import WEIGHTS
from cbtrain.model.config import LORA_TARGETS
from cbtrain.tokens.document import Document

IGNORED = -100

SessionLoss = Callable[[Any, Tensor, Tensor, int], Tensor]
"""``loss(model, ids [1, T], labels [1, T], tokens of the step)``: the session's part of the step's loss. ``labels`` are
the ids of supervised tokens, not shifted, and :data:`IGNORED` elsewhere."""


def labels_of(document: Document) -> list[int]:
    ids, counted = document.ids.tolist(), document.supervised.tolist()
    return [token if counts else IGNORED for token, counts in zip(ids, counted, strict=True)]


def loop(run: Run, model: nn.Module, session_loss: SessionLoss) -> dict[str, Any]:
    """Train the steps of the row; return :meth:`StepClock.measured`."""
    work, parameters = run.work, trained(model)
    clock = StepClock(run.device, parameters)
    optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True)
    model.train()
    for step, supervised in zip(work.steps, work.supervised, strict=True):
        total = torch.zeros((), device=run.device)
        for index in step:
            document = work.documents[index]
            ids, labels = (
                torch.tensor([row], device=run.device) for row in (document.ids.tolist(), labels_of(document))
            )
            # Adapters are fp32 in all of them: mixed precision, as their own trainers have it.
            with torch.autocast(run.device, dtype=torch.bfloat16, enabled=run.row.weights == "bf16"):
                loss = session_loss(model, ids, labels, supervised)
            loss.backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.ended()
        clock.saw(total.item(), norm.item())
    return clock.measured(run, work)


def supervised_rows_loss(model: Any, ids: Tensor, labels: Tensor, tokens: int) -> Tensor:
    """Return the loss from the logits of supervised rows only."""
    targets = labels[0, 1:]
    rows = (targets != IGNORED).nonzero()[:, 0]
    logits = model(input_ids=ids, logits_to_keep=rows, use_cache=False).logits[0]
    return F.cross_entropy(logits.float(), targets[rows], reduction="sum") / tokens


def labels_loss(model: Any, ids: Tensor, labels: Tensor, tokens: int) -> Tensor:
    """Return the loss as the model computes it from labels."""
    out: Tensor = model(input_ids=ids, labels=labels, num_items_in_batch=tokens, use_cache=False).loss
    return out


def peft_model(run: Run, load: Callable[..., Any] | None = None) -> Any:
    """Return the base by ``load`` (default: transformers, with PyTorch's fused attention) and the adapter on it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    load = load or AutoModelForCausalLM.from_pretrained
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[run.row.weights]
    base = load(
        str(run.folder / BASE),
        dtype=dtype,
        attn_implementation="sdpa",
        device_map=run.device,
        trust_remote_code=False,
    )
    return PeftModel.from_pretrained(base, str(run.folder / ADAPTER), is_trainable=True)


def peft(run: Run) -> dict[str, Any]:
    return loop(run, peft_model(run), supervised_rows_loss)


def liger(run: Run) -> dict[str, Any]:
    from liger_kernel.transformers import AutoLigerKernelForCausalLM

    return loop(run, peft_model(run, AutoLigerKernelForCausalLM.from_pretrained), labels_loss)


def unsloth(run: Run) -> dict[str, Any]:
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    from unsloth import FastLanguageModel  # before peft and transformers, which it changes

    from peft import set_peft_model_state_dict  # isort: skip

    model, _ = FastLanguageModel.from_pretrained(
        str(run.folder / BASE),
        max_seq_length=run.plan.longest,
        dtype=torch.bfloat16,
        load_in_4bit=False,
        trust_remote_code=False,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0,
        target_modules=list(LORA_TARGETS),
        use_gradient_checkpointing=False,
    )
    set_peft_model_state_dict(model, load_file(run.folder / ADAPTER / WEIGHTS))
    return loop(run, FastLanguageModel.for_training(model, use_gradient_checkpointing=False), labels_loss)
