"""Row ``trl``: the same model as ``peft`` in TRL's SFTTrainer.

Of the settings that compute this loss the fastest on a CPU is used: PyTorch's fused attention, one session a
micro-batch, nothing computed again, and TRL's loss in chunks (TRL 1.16 has no other). Tried with sessions of 1,500 to
2,600 tokens at the CPU's shape: two sessions end to end (``padding_free`` or ``packing``) give the same losses in 1.5
times the processor's seconds and 1.8 times the memory, because a mask of the documents replaces the causal kernel.
"""

from __future__ import annotations

from typing import Any

from benchmarks.training.peers import peft_model
from benchmarks.training.rows import BETAS, CLIP, DECAY, RATE
from benchmarks.training.run import Run, StepClock, trained
from benchmarks.training.sessions import BASE, PER_STEP


def trl(run: Run) -> dict[str, Any]:
    """Train the steps of the row; return :meth:`StepClock.measured`."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    work, model = run.work, peft_model(run)
    clock = StepClock(run.device, trained(model))

    class Watch(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.ended()

        def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
            if "loss" in logs:
                clock.saw(logs["loss"], logs["grad_norm"])

    documents = [work.documents[index] for step in work.steps for index in step]
    records = [
        {"input_ids": document.ids.tolist(), "assistant_masks": document.supervised.astype(int).tolist()}
        for document in documents
    ]
    settings = SFTConfig(
        output_dir=str(run.folder / "trl"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=PER_STEP,
        max_steps=len(work.steps),
        max_length=None,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        use_cpu=run.device == "cpu",
        bf16=run.row.weights == "bf16",
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        weight_decay=DECAY,
        max_grad_norm=CLIP,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(records),
        processing_class=AutoTokenizer.from_pretrained(run.folder / BASE, trust_remote_code=False),
        callbacks=[Watch()],
    )
    trainer.train()
    return clock.measured(run, work)
