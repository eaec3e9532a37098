import numpy as np
import pytest
import torch
from tiny_architecture import TINY

from cbtrain.model.decoder import Decoder, initialize
from cbtrain.tokens.document import Document


@pytest.fixture
def tiny():
    """A random decoder of about 20,000 parameters; call it for a fresh one."""

    def make(seed=0):
        architecture = TINY
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
