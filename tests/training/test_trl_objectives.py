"""ORPO and DPO against TRL's trainers: the same loss, and the same gradients of a LoRA adapter."""

import numpy as np
import pytest
import torch
from adapter_values import randomize
from batches import micro_batches
from datasets import Dataset
from family_tokenizers import family_tokenizer
from peft import PeftConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from cbtrain.model.adapters.methods import inject, save_adapter
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import build_pack
from cbtrain.tokens.pair_builder import joined
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine

trl = pytest.importorskip("trl")

PAIRS = [
    {
        "prompt": [
            {"role": "user", "content": "I failed again at work today."},
            {"role": "assistant", "content": "What happened?"},
            {"role": "user", "content": "My boss asked a question and I had no answer."},
        ],
        "chosen": [{"role": "assistant", "content": "What went through your mind at that moment?"}],
        "rejected": [{"role": "assistant", "content": "Just prepare better next time."}],
    }
]
CASES = {
    "dpo": ({"objective": "dpo", "preference": {"beta": 0.3}}, {"beta": 0.3}),
    "dpo with sft": (
        {"objective": "dpo", "preference": {"beta": 0.3, "sft_weight": 0.5}},
        {"beta": 0.3, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
    ),
    "ipo": ({"objective": "dpo", "preference": {"loss": "ipo"}}, {"loss_type": ["ipo"]}),
    "orpo": ({"objective": "orpo", "preference": {"beta": 0.2, "likelihood": "text"}}, {"beta": 0.2}),
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A random base, an adapter for it, and the tokenizer."""
    folder = tmp_path_factory.mktemp("tuned")
    tokenizer = family_tokenizer("qwen2.5")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, initializer_range=0.2, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    decoder = load_decoder(str(folder / "base"))
    inject(decoder, LoraConfig(rank=4, alpha=6.0))
    randomize(decoder)
    save_adapter(decoder, folder / "adapter", base=str(folder / "base"))
    return folder, decoder, tokenizer


def theirs(name, options, folder, tokenizer):
    """Return TRL's loss of the pairs, its gradients, and the batch."""
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    peft_config = PeftConfig.from_pretrained(folder / "adapter")
    peft_config.inference_mode = False
    common = {"output_dir": str(folder / "trl"), "report_to": "none", "use_cpu": True, "bf16": False}
    common |= {"per_device_train_batch_size": 1, "gradient_checkpointing": False, "max_length": None}
    if name.startswith("orpo"):
        from trl.experimental.orpo import ORPOConfig as Config
        from trl.experimental.orpo import ORPOTrainer as Trainer

        options = {**options, "disable_dropout": True}
    else:
        from trl import DPOConfig as Config
        from trl import DPOTrainer as Trainer
    trainer = Trainer(
        model=base,
        args=Config(**common, **options),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    # A new adapter, so that TRL's reference is the base; its values are ours.
    set_peft_model_state_dict(trainer.model, load_file(folder / "adapter" / "adapter_model.safetensors"))
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    gradients = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, batch


def documents_of(batch):
    """Return the two documents that TRL has made of the pair: its tokens, its mask."""
    if "completion_mask" in batch:
        kept = batch["attention_mask"].bool()
        ids = [row[mask] for row, mask in zip(batch["input_ids"], kept, strict=True)]
        masks = [row[mask] for row, mask in zip(batch["completion_mask"], kept, strict=True)]
    else:
        ids = [batch[f"{side}_input_ids"][0] for side in ("chosen", "rejected")]
        masks = [batch[f"{side}_labels"][0] != -100 for side in ("chosen", "rejected")]
    return [
        Document("answer", row.numpy().astype(np.int32), mask.numpy().astype(np.float32))
        for row, mask in zip(ids, masks, strict=True)
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_pair_has_the_loss_and_the_gradients_of_trl(name, tuned):
    folder, decoder, tokenizer = tuned
    settings, options = CASES[name]
    wanted, gradients, batch = theirs(name, options, folder, tokenizer)
    config = StageConfig(**settings)
    chosen, rejected = documents_of(batch)
    document = joined(chosen, rejected, "pair", prompt_counts=config.preference.likelihood == "text")
    assert len(document) < 0.75 * (len(chosen) + len(rejected))
    decoder.train()
    decoder.zero_grad()
    (micro_batch,) = micro_batches([build_pack([document])])
    engine = TorchEngine(decoder, config)
    terms = engine.terms(micro_batch.pack)
    loss = (terms.values * terms.weights).sum()
    loss.backward()
    assert loss.item() == pytest.approx(wanted, rel=2e-5)
    for path, module in decoder.adapter.modules.items():
        for leaf in ("lora_A", "lora_B"):
            expected = gradients[f"base_model.model.model.{path}.{leaf}.default.weight"]
            found = getattr(module, leaf).grad
            assert (found - expected).norm() / expected.norm() < 1e-4, (path, leaf)
