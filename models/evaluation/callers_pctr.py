"""What a caller knows of clicks before anything is written: a click model of its own.

Callers of ad servers have one, fitted to the clicks that they have seen. This is the smallest that
deserves the name: a logistic regression on how close an ad's title, category and offer are to the
question, and its offer to what is known of the user; fitted to drawn clicks of training users on
ads that were shown alone. It knows neither the probabilities that clicks are drawn from nor any
user of the test split.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.simulation.auctions import AuctionOptions, draw_auctions
from models.simulation.click_model import ClickModel, profile_texts
from models.simulation.embeddings import Encoder
from models.simulation.nouns import Auction, Split
from models.simulation.randomness import uniform
from models.simulation.world import World

CallersPctr = Callable[[Auction], list[float]]
"""Each candidate's chance of a click, over 0, under 1."""

_SEED = 20251210
_RIDGE = 1e-4


def fit_callers_pctr(
    world: World,
    users: ClickModel,
    encoder: Encoder,
    options: AuctionOptions | None = None,
    count: int = 2_000,
) -> CallersPctr:
    """Fit to one click or none on each ad of `count` auctions of training users.

    Raises WorldTooSmall where the world has none of their questions, or too few ads for `options`.
    """
    auctions = draw_auctions(world, Split.TRAIN, count, _SEED, options)
    features = [_closeness(encoder, one) for one in auctions]
    clicks = [
        uniform("callers-pctr", one.auction_id, ad.ad_id) < probability
        for one, found in zip(auctions, users.native_probabilities(auctions), strict=True)
        for ad, probability in zip(one.ads, found, strict=True)
    ]
    weights = _logistic_regression(np.concatenate(features), np.array(clicks, np.float64))

    def pctr(auction: Auction) -> list[float]:
        logits = _closeness(encoder, auction) @ weights
        return [float(rate) for rate in 1 / (1 + np.exp(-logits))]

    return pctr


def _closeness(encoder: Encoder, auction: Auction) -> NDArray[np.float64]:
    """[ads, 5]: 1, the cosines of the question with title, category and offer, and of the offer
    with what comes nearest to it in the user's profile."""
    ads, asked = auction.ads, encoder.encode([auction.query.text])[0]
    texts = ([ad.title for ad in ads], [ad.category for ad in ads], [ad.offer for ad in ads])
    columns = [encoder.encode(column) @ asked for column in texts]
    liked = np.zeros(len(ads))
    if known := profile_texts(auction.user.profile):
        liked = (encoder.encode(texts[-1]) @ encoder.encode(known).T).max(axis=1)
    return np.stack([np.ones(len(ads)), *columns, liked], axis=1).astype(np.float64)


def _logistic_regression(
    features: NDArray[np.float64], outcomes: NDArray[np.float64]
) -> NDArray[np.float64]:
    def loss(weights: NDArray[np.float64]) -> float:
        logits = features @ weights
        fit = np.logaddexp(0, logits).mean() - (outcomes * logits).mean()
        return float(fit + _RIDGE * weights @ weights)

    found: NDArray[np.float64] = minimize(loss, np.zeros(features.shape[1])).x
    return found
