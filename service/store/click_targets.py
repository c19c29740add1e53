"""Where clicks lead and whom they are charged to, whatever became of the ad since.

Keys, in the catalogue's hash slot:

    {ns}:shown_ads:<response_id>  hash of ad_id to `[advertiser_id, landing_url]` as JSON; kept
                                  longer than its charges can be made
    {ns}:landings                 hash of ad_id to the landing page that it was last shown with
    {ns}:parked:<response_id>     set of the ads that were clicked before the answer was recorded

The first says that the answer was recorded, and for whom the ad was in it. The second lets old
links lead somewhere when the ad is deleted and the answer forgotten. The third keeps the clicks on
an answer that is still being written; `Ledger.charge_all` takes them when it is recorded. None
holds a user.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis

from service.auction.ad import Ad, Url
from service.store.connection import Store

_GRACE_S = 86_400
_REMEMBERED = 10_000
_PARKED_S = 900
"""Longer than any answer is written for."""

_LANDING = TypeAdapter(Url)

_WRITE = """
for id, shown in pairs(cjson.decode(ARGV[2])) do
  redis.call('HSET', KEYS[1], id, cjson.encode(shown))
  redis.call('HSET', KEYS[2], id, shown[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""

_PARK = """
local shown = redis.call('HGET', KEYS[1], ARGV[1])
if shown then return shown end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
"""


@dataclass(frozen=True, slots=True)
class ClickTarget:
    """landing_url: None where nothing is known of the ad. advertiser_id: whose ad it was when it
    was shown; None where no record says that it was shown."""

    landing_url: str | None
    advertiser_id: str | None


class ClickTargets:
    """charge_ttl_s: how long after an answer its clicks are charged."""

    def __init__(self, store: Store, namespace: str, charge_ttl_s: int) -> None:
        self._store = store
        self._prefix = f"{{{namespace}}}:"
        self._ttl_s = charge_ttl_s + _GRACE_S
        self._remembered: OrderedDict[str, str] = OrderedDict()

    def write(self, redis: Redis, response_id: str, ads: Sequence[Ad]) -> None:
        """Put the command that keeps the shown `ads` on a pipeline; none where there are no ads."""
        if not ads:
            return
        shown = {ad.ad_id: (ad.advertiser_id, ad.landing_url) for ad in ads}
        keys = (self._shown_key(response_id), f"{self._prefix}landings")
        redis.eval(_WRITE, len(keys), *keys, self._ttl_s, json.dumps(shown))
        for ad in ads:
            self._remember(ad.ad_id, ad.landing_url)

    async def find(self, response_id: str, ad_id: str) -> ClickTarget:
        """Where a click leads now, in one round trip. Raises StoreUnavailable."""

        async def read(redis: Redis) -> list[bytes | None]:
            pipeline = redis.pipeline(transaction=False)
            pipeline.hget(f"{self._prefix}ads", ad_id)
            pipeline.hget(self._shown_key(response_id), ad_id)
            pipeline.hget(f"{self._prefix}landings", ad_id)
            return await pipeline.execute()

        entered, shown, last = await self._store.run(read)
        advertiser_id, shown_url = json.loads(shown) if shown else (None, None)
        candidates = (
            _landing_of(entered, advertiser_id),
            shown_url,
            last.decode() if last else None,
        )
        landing_url = next((url for url in candidates if _is_landing(url)), None)
        if landing_url is not None:
            self._remember(ad_id, landing_url)
        return ClickTarget(landing_url, advertiser_id)

    async def park(self, response_id: str, ad_id: str) -> str | None:
        """Keep a click until its answer is recorded. Raises StoreUnavailable.

        Where it is recorded already, nothing is kept, and whose ad it was is returned.
        """
        keys = (self._shown_key(response_id), self.parked_key(response_id))
        shown: bytes | None = await self._store.run(
            lambda redis: redis.eval(_PARK, len(keys), *keys, ad_id, _PARKED_S)
        )
        advertiser_id: str | None = json.loads(shown)[0] if shown else None
        return advertiser_id

    def remembered(self, ad_id: str) -> str | None:
        """The landing page that this process last saw, for when the store is away."""
        return self._remembered.get(ad_id)

    def _remember(self, ad_id: str, landing_url: str) -> None:
        self._remembered[ad_id] = landing_url
        self._remembered.move_to_end(ad_id)
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    def _shown_key(self, response_id: str) -> str:
        return f"{self._prefix}shown_ads:{response_id}"

    def parked_key(self, response_id: str) -> str:
        """Where the clicks on an answer wait for its record: a set of ad ids."""
        return f"{self._prefix}parked:{response_id}"


def _landing_of(entered: bytes | None, advertiser_id: str | None) -> str | None:
    """The page that is entered now, unless the ad is no longer that of the advertiser who pays."""
    try:
        ad = json.loads(entered or b"{}")
        is_anothers = advertiser_id is not None and ad.get("advertiser_id") != advertiser_id
        landing_url: str | None = None if is_anothers else ad.get("landing_url")
    except (ValueError, AttributeError):
        return None  # a damaged ad: what it was shown with is known all the same
    return landing_url


def _is_landing(url: str | None) -> bool:
    """Whether a browser may be sent there: http or https, as an ad's address must be."""
    try:
        _LANDING.validate_python(url)
    except ValidationError:
        return False
    return True
