"""What tests of several packages share: the default model, made servable once and kept."""

import os
from pathlib import Path

import pytest

from models.engine.environment import process_environment
from models.provision import DEFAULT_MODEL, ServableModel, provision

# The engine's own process, where these matter most, starts with this process's environment.
os.environ.update(process_environment(os.environ, offline=True))


@pytest.fixture(scope="session")
def servable_model(pytestconfig: pytest.Config) -> ServableModel:
    cache = pytestconfig.cache
    assert cache is not None
    return provision(DEFAULT_MODEL, Path(cache.mkdir("models")), print)
