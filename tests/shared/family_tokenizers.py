"""Tokenizers of the four named families: Mistral's own, and small ones with the others' splitting and special tokens.

Stock chat templates come from the packages that ship them (``trl``) at run time; Mistral's is written anew here with the
behaviour that matters: the system text goes into the last message, and is lost where that is an answer.
"""

import importlib.util
from functools import lru_cache
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from cbtrain.transcripts.reading import read

FAMILIES = ("llama3.1", "qwen2.5", "qwen3", "mistral-v0.3")

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_SPECIALS = (
    "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|finetune_right_pad_id|>"
)
QWEN_SPECIALS = "<|endoftext|> <|im_start|> <|im_end|>"

MISTRAL_STOCK = """
{%- set start = 1 if messages[0].role == 'system' else 0 %}
{{- bos_token }}
{%- for message in messages[start:] %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate') }}{% endif %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' }}
        {%- if loop.last and start %}{{- messages[0].content + '\n\n' }}{% endif %}
        {{- message.content + '[/INST]' }}
    {%- else %}
        {{- ' ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}
"""


def package_file(package: str, *parts: str) -> Path:
    """A file of an installed package, which is not imported; the test is skipped where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


def trl_template(name: str) -> str:
    return package_file("trl", "chat_templates", f"{name}.jinja").read_text()


@lru_cache
def _trained(numbers: str, specials: tuple[str, ...]) -> str:
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS % numbers), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator((turn.text for s in read("sample").sessions() for turn in s.turns), trainer)
    made.add_special_tokens(list(specials))
    return made.to_str()


def _byte_level(numbers, specials, template, added=(), **tokens):
    made = Tokenizer.from_str(_trained(numbers, tuple(specials.split())))
    made.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=template, **tokens)


@lru_cache
def _mistral_parts():
    import sentencepiece
    from transformers.tokenization_utils_base import generate_merges

    file = package_file("mistral_common", "data", "mistral_instruct_tokenizer_240323.model.v3")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(file))
    names = [pieces.id_to_piece(index) for index in range(pieces.get_piece_size())]
    vocabulary = {name: index for index, name in enumerate(names)}
    merges = generate_merges(vocabulary, {name: pieces.get_score(index) for index, name in enumerate(names)})
    control = [name for index, name in enumerate(names) if pieces.is_control(index) and name not in ("<s>", "</s>")]
    return vocabulary, merges, control


def family_tokenizer(family: str, template: str | None = None):
    """A tokenizer of ``family`` with its stock chat template, or with ``template``."""
    if family == "llama3.1":
        own = template or trl_template("llama3_1")
        return _byte_level(r"\p{N}{1,3}", LLAMA_SPECIALS, own, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    if family in ("qwen2.5", "qwen3"):
        own = template or trl_template(family.replace(".", "_"))
        added = ["<think>", "</think>"] if family == "qwen3" else []
        tokens = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        return _byte_level(r"\p{N}", QWEN_SPECIALS, own, added, **tokens)
    vocabulary, merges, control = _mistral_parts()
    made = LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=False, extra_special_tokens=control)
    made.chat_template = template or MISTRAL_STOCK
    return made
