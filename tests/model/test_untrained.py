"""Tokens that a base model has hardly ever seen are told by their rows in the output matrix."""

from io import StringIO

import torch
from random_model import random_model
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from cbtrain.model.undertrained_tokens import weak_rows
from cbtrain.model.weights.loading import load_decoder
from cbtrain.study.finetune import warn_of_weak_stop
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.tokenizer import load_tokenizer

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def test_rows_that_stayed_near_zero_are_found(tmp_path):
    for tied in (True, False):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
        with torch.no_grad():
            model.get_output_embeddings().weight[7] *= 0.2
            model.get_output_embeddings().weight[8] = 0
        model.save_pretrained(tmp_path / str(tied))
        found = weak_rows(load_decoder(str(tmp_path / str(tied))), [6, 7, 8])
        assert set(found) == {7, 8}
        assert 0.1 < found[7] < 0.4
        assert found[8] == 0


def test_a_study_warns_of_a_stop_token_that_was_never_trained(tmp_path):
    decoder = load_decoder(str(random_model(tmp_path, "llama")))
    renderer = ChatRenderer(load_tokenizer(tmp_path))
    said = StringIO()
    warn_of_weak_stop("therapist", decoder, renderer, Console(file=said))
    assert said.getvalue() == ""
    decoder.lm_head.weight[renderer.answer_stop_id] *= 0.1
    warn_of_weak_stop("therapist", decoder, renderer, Console(file=said))
    assert "the base model hardly knows its stop token '<|end|>'" in said.getvalue()
    assert "the therapist may not learn to stop" in said.getvalue()
    assert "therapist.lora.modules_to_save" in said.getvalue()
