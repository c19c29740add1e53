"""The demo catalogue: a hundred made-up ads, so that a fresh service has something to show."""

import logging
from importlib.resources import files

from service.auction.ad_rows import RowFormat, read_rows
from service.store.catalog import Catalog
from service.store.connection import StoreUnavailable

log = logging.getLogger(__name__)


async def load_demo_ads(catalog: Catalog) -> int:
    """Fill a catalogue that never held an ad; the number of ads loaded.

    Once only: whoever deletes the demo ads does not find them again after a restart. A store that
    is away is left as it is.
    """
    try:
        if await catalog.is_seeded() or await catalog.count():
            return 0
        body = files(__package__).joinpath("demo_ads.jsonl").read_bytes()
        ads = [row.ad for row in read_rows(body, RowFormat.NDJSON) if row.ad is not None]
        await catalog.import_many(ads)
        await catalog.mark_seeded()
    except StoreUnavailable:
        log.warning("the demo ads were not loaded: the ad store is away")
        return 0
    return len(ads)
