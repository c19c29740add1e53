"""The advertisers that were entered: who is paused, and what each may spend.

Keys, in the catalogue's hash slot:

    {ns}:advertisers          hash of advertiser_id to the advertiser as JSON
    {ns}:advertisers:ids      sorted set of all ids, all with score 0, so ordered by id
    {ns}:advertisers:top-ups  hash of <advertiser_id>\\x1f<reference> to micros

What they have spent is the ledger's (`service/store/ledger.py`). Nobody needs to be entered: an
advertiser that was not is active and has no limits.
"""

from service.auction.advertiser import Advertiser
from service.store.connection import Store
from service.store.records import Records


class Advertisers(Records[Advertiser]):
    """Every method raises StoreUnavailable."""

    def __init__(self, store: Store, namespace: str) -> None:
        key = f"{{{namespace}}}:advertisers"
        super().__init__(store, key, f"{key}:ids", Advertiser)
