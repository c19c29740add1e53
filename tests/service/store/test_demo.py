from collections.abc import Callable
from pathlib import Path

from service.auction.ad import Ad
from service.settings import StoreSettings
from service.store.catalog import Catalog
from service.store.connection import open_store
from service.store.demo import load_demo_ads


async def test_an_empty_catalogue_is_filled_once(catalog: Catalog) -> None:
    assert await load_demo_ads(catalog) == 100
    assert await catalog.count() == 100
    assert await load_demo_ads(catalog) == 0


async def test_deleted_demo_ads_stay_deleted(catalog: Catalog) -> None:
    await load_demo_ads(catalog)
    for ad in (await catalog.list(None, 1_000)).ads:
        await catalog.delete(ad.ad_id)
    assert await load_demo_ads(catalog) == 0
    assert await catalog.count() == 0


async def test_a_catalogue_in_use_is_left_alone(
    catalog: Catalog, make_ad: Callable[..., Ad]
) -> None:
    await catalog.put(make_ad())
    assert await load_demo_ads(catalog) == 0
    assert await catalog.count() == 1


async def test_a_store_that_is_away_is_no_error(tmp_path: Path) -> None:
    settings = StoreSettings(url="redis://127.0.0.1:1/0")
    async with open_store(settings, tmp_path, print) as away:
        assert await load_demo_ads(Catalog(away, "test")) == 0
