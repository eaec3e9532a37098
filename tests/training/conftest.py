import numpy as np
import pytest
import torch

from cbtrain.model.architecture import Architecture
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.model.rope_keys import Rope
from cbtrain.tokens.document import Document


@pytest.fixture
def tiny():
    """A random decoder of about 20,000 parameters; call it for a fresh one."""

    def make(seed=0):
        architecture = Architecture(
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
        decoder = Decoder(architecture)
        initialize(decoder, seed)
        return decoder

    return make


@pytest.fixture
def documents():
    """Ragged documents with very unequal shares of supervised tokens."""
    random = np.random.default_rng(0)
    made = []
    for i in range(12):
        length = int(random.integers(5, 40))
        supervised = random.random(length) < random.random()
        supervised[-1] = True
        made.append(Document(f"d{i}", random.integers(0, 61, length).astype(np.int32), supervised.astype(np.float32)))
    return made


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
