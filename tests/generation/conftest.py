import pytest
from random_model import random_model


@pytest.fixture(scope="session", params=["llama", "mistral-window"])
def folder(request, tmp_path_factory):
    return random_model(tmp_path_factory.mktemp(request.param), request.param)
