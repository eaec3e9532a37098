"""A tiny model with two adapters, served in this process on a real port."""

from contextlib import asynccontextmanager

import pytest
from study_files import model_with_adapters

from cbtrain.generation.config import EngineConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.serving.address import bind
from cbtrain.serving.app import ModelServer
from cbtrain.serving.models import ServedModels
from cbtrain.serving.run import listening


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory):
    """A base with the adapters ``kind`` and ``brief`` inside its folder."""
    return model_with_adapters(tmp_path_factory.mktemp("served"), positions=512)


@pytest.fixture
def opened(served_folder):
    """Opens a server: ``async with opened(…) as (url, server)``."""

    @asynccontextmanager
    async def open_server(*args, adapters=("kind", "brief"), grace=5.0, header_seconds=10.0, **options):
        folders = {name: served_folder / name for name in adapters}
        model = LocalModel(str(served_folder), folders, EngineConfig(slots=4, context_tokens=256))
        model.give_base_a_voice()
        server = ModelServer(ServedModels(model, "base"), *args, **options)
        async with listening(server.app(), bind("127.0.0.1", 0), grace=grace, header_seconds=header_seconds) as url:
            yield url, server

    return open_server
