"""Tokens that a base model has hardly ever seen are told by their rows in the output matrix."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cbtrain.model.untrained import weak_rows
from cbtrain.model.weights import load_decoder

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
