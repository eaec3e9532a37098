"""Load a tokenizer, or train the byte-level BPE of a tiny model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError

# The library starts worker threads of its own; a fork after that can deadlock.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TINY_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def has_tokenizer(folder: Path) -> bool:
    """Return whether there are files of a tokenizer in ``folder``."""
    return any((folder / name).exists() for name in FILES)


def load_tokenizer(folder: str | Path) -> Any:
    """Return the fast tokenizer of a model folder. Raises UserError if there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:  # transformers raises many kinds here, all about the files
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"no usable tokenizer ({reason})", where=folder, hint="Add tokenizer.json to it.") from None
    if not tokenizer.is_fast:
        raise UserError("only a slow tokenizer is here", where=folder, hint="Add tokenizer.json (the fast one) to it.")
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocabulary: int, max_positions: int) -> Any:
    """Return a new byte-level BPE tokenizer of at most ``vocabulary`` entries, with the tiny models' chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=list(ROLES),
        chat_template=TINY_TEMPLATE,
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )
