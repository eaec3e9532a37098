import pytest
from random_model import random_model
from sweeps import write_corpus


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A random base of two layers and a corpus of short sessions."""
    place = tmp_path_factory.mktemp("place")
    random_model(place / "base", "llama", 4096)
    write_corpus(place / "corpus")
    return place
