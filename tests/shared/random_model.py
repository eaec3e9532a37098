"""Small random models as transformers writes them, with a real tokenizer."""

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from cbtrain.tokens.tokenizer import train_tokenizer

KINDS = ("llama", "mistral-window", "qwen2", "qwen3")
TEXT = "I feel low. What went through your mind? That I fail. How sure are you, from 0 to 100? Very sure, I think."


def random_model(path, kind, positions=512):
    """Write a model of ``kind`` (:data:`KINDS`; "mistral-window" has a sliding window) to ``path`` and return it."""
    tokenizer = train_tokenizer([TEXT] * 4, 350, 512)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": positions,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    model = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**sizes)),
        "mistral-window": lambda: MistralForCausalLM(MistralConfig(**sizes, sliding_window=11)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**sizes, use_sliding_window=False)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=8, use_sliding_window=False)),
    }[kind]()
    with torch.no_grad():  # wide enough that greedy answers vary and sometimes stop
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
