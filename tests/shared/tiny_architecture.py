"""The shape of a decoder of about 20,000 parameters; tests that need another one replace what differs."""

from cbtrain.model.architecture import Architecture
from cbtrain.model.rope_keys import Rope

TINY = Architecture(
    name="LlamaForCausalLM",
    vocabulary=61,
    hidden=24,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=6,
    intermediate=40,
    max_positions=512,
    norm_eps=1e-5,
    rope=Rope(),
    tied_embeddings=False,
    qkv_bias=False,
    out_bias=False,
    mlp_bias=False,
    sliding_window=None,
    eos_ids=(1,),
)
