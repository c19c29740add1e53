"""A real Valkey for the service's tests, one for them all; every test has keys of its own."""

import itertools
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from service.auction.ad import Ad
from service.settings import StoreSettings
from service.store.catalog import Catalog
from service.store.connection import Store, open_store

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Store]:
    # generous, since the machine may be busy; tests of slowness open stores of their own
    settings = StoreSettings(timeout_ms=10_000)
    async with open_store(settings, tmp_path_factory.mktemp("state"), print) as opened:
        yield opened


@pytest.fixture
def namespace() -> str:
    return f"test-{next(_numbers)}"


@pytest.fixture
def catalog(store: Store, namespace: str) -> Catalog:
    return Catalog(store, namespace)


@pytest.fixture(scope="session")
def make_ad() -> Callable[..., Ad]:
    def make(ad_id: str = "Ad-1", **fields: Any) -> Ad:
        return Ad.model_validate(
            {
                "ad_id": ad_id,
                "title": f"Trailhead Boots {ad_id}",
                "category": "hiking boots",
                "landing_url": "https://www.trailhead-boots.example/",
                "advertiser_id": "adv-trailhead",
                **fields,
            }
        )

    return make
