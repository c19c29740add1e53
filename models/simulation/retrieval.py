"""Which ads a search would bring to a query of which nobody knows what serves it."""

from collections.abc import Sequence

import numpy as np

from models.simulation.embeddings import Encoder
from models.simulation.nouns import Ad, Query


def nearest_ads(
    queries: Sequence[Query], ads: Sequence[Ad], encoder: Encoder, count: int = 10
) -> dict[str, tuple[str, ...]]:
    """The ids of the `count` ads most like each query, by its id, best first; all where fewer."""
    if not queries or not ads:
        return {}
    alike = encoder.encode([query.text for query in queries]) @ (
        encoder.encode([ad.offer for ad in ads]).T
    )
    order = np.argsort(-alike, axis=1, kind="stable")[:, :count]
    return {
        query.query_id: tuple(ads[place].ad_id for place in places)
        for query, places in zip(queries, order.tolist(), strict=True)
    }
