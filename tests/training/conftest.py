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
            "LlamaForCausalLM", 61, 24, 2, 4, 2, 6, 40, 512, 1e-5, Rope(), False, False, False, False, None, (1,)
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
