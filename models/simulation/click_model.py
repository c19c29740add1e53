"""Simulated users without a language model: who clicks on what follows from the texts alone.

A click gets likelier the better an ad fits query and profile and the more natively it stands in
its sentence; less likely the more similar ads compete with it; and nobody clicks in an answer
that is flooded with ads. `click_parameters` holds every number. What is known of the truth
(`Query.category`) is not used here.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract.prompt import Profile
from models.simulation.click_parameters import ClickParameters
from models.simulation.embeddings import Encoder
from models.simulation.nouns import Ad, Auction, Click, Exposure
from models.simulation.placement import Placement, ad_talk, placements, words
from models.simulation.randomness import uniform

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n")
_DECIMALS = 6
_FITS, _AWKWARD, _COMPETES = 0.5, 0.5, 0.7


class ClickModel:
    """Simulated users (`SimulatedUsers`); the same exposures get the same clicks."""

    def __init__(self, encoder: Encoder, parameters: ClickParameters | None = None) -> None:
        self._encoder = encoder
        self._parameters = parameters or ClickParameters()

    async def clicks(self, exposures: Sequence[Exposure]) -> list[tuple[Click, ...]]:
        """As `clicks_now`, in a thread, so that the loop stays free."""
        return await asyncio.to_thread(self.clicks_now, exposures)

    def clicks_now(self, exposures: Sequence[Exposure]) -> list[tuple[Click, ...]]:
        """For each answer, in order, a Click for each of its insertions, in order."""
        places = [placements(exposure.reading) for exposure in exposures]
        self._encode_together([exposure.auction for exposure in exposures], places)
        return [
            self._read(exposure, found) for exposure, found in zip(exposures, places, strict=True)
        ]

    def native_probabilities(self, auctions: Sequence[Auction]) -> list[NDArray[np.float64]]:
        """For each auction, each candidate's click probability if it were the answer's only ad,
        woven in natively; shape (candidates,), 0 to 1."""
        self._encode_together(auctions, [])
        return [_logistic(self._logits(auction, auction.ads)) for auction in auctions]

    def relevances(self, auction: Auction) -> NDArray[np.float64]:
        """How well each candidate fits the query; shape (candidates,), 0 to 1."""
        return self._relevance(auction.query.text, auction.ads)

    def _read(self, exposure: Exposure, places: Sequence[Placement]) -> tuple[Click, ...]:
        if not places:
            return ()
        auction = exposure.auction
        by_id = {ad.ad_id: ad for ad in auction.ads}
        ads = [by_id[place.ad_id] for place in places]
        if flood := self._flood(exposure):
            return tuple(Click(ad.ad_id, 0.0, False, flood) for ad in ads)
        awkwardness = self._awkwardness(places, ads)
        logits = self._logits(auction, ads)
        logits -= self._parameters.by_awkwardness * awkwardness
        logits -= self._parameters.by_further_ad * (len(ads) - 1)
        logits -= self._parameters.by_ad_talk * ad_talk(exposure.reading)
        shares = self._shares(ads, logits)
        grounds = Grounds(
            self._relevance(auction.query.text, ads),
            self._match(auction.user.profile, ads),
            awkwardness,
            shares,
        )
        return tuple(
            _click(ad.ad_id, float(probability), auction.seed, grounds.reason(index))
            for index, (ad, probability) in enumerate(
                zip(ads, _logistic(logits) * shares, strict=True)
            )
        )

    def _flood(self, exposure: Exposure) -> str:
        """Why nobody clicks on anything in the answer; empty where somebody may."""
        limits, reading = self._parameters, exposure.reading
        ads = len(reading.insertions)
        if ads > limits.most_ads:
            return f"{ads} ads flood the answer"
        if ads > 1 and words(reading) < limits.fewest_words_per_ad * ads:
            return f"{ads} ads in hardly any text"
        if ad_talk(reading) > limits.most_ad_talk:
            return "the answer talks like an advert"
        return ""

    def _logits(self, auction: Auction, ads: Sequence[Ad]) -> NDArray[np.float64]:
        """Log-odds of a click on each of `ads`, natively placed and alone."""
        weights = self._parameters
        relevance = self._relevance(auction.query.text, ads)
        match = self._match(auction.user.profile, ads)
        return weights.click_base + weights.by_relevance * relevance + weights.by_profile * match

    def _relevance(self, query: str, ads: Sequence[Ad]) -> NDArray[np.float64]:
        weights = self._parameters
        asked = self._encoder.encode([query])[0]
        by_category = self._encoder.encode([ad.category or ad.title for ad in ads]) @ asked
        by_offer = self._encoder.encode([ad.offer for ad in ads]) @ asked
        return _logistic(
            weights.relevance_base
            + weights.relevance_by_category * by_category.astype(np.float64)
            + weights.relevance_by_offer * by_offer.astype(np.float64)
        )

    def _match(self, profile: Profile, ads: Sequence[Ad]) -> NDArray[np.float64]:
        """How much more the ads are to the taste of the user than ads usually are."""
        texts = profile_texts(profile)
        if not texts:
            return np.zeros(len(ads))
        alike = self._encoder.encode([ad.offer for ad in ads]) @ self._encoder.encode(texts).T
        return np.asarray(alike.max(axis=1), np.float64) - self._parameters.usual_match

    def _awkwardness(self, places: Sequence[Placement], ads: Sequence[Ad]) -> NDArray[np.float64]:
        weights = self._parameters
        sentences = self._encoder.encode([place.sentence for place in places])
        offers = self._encoder.encode([ad.offer for ad in ads])
        on_subject = _ramp(
            (sentences * offers).sum(axis=1), weights.off_subject_cosine, weights.on_subject_cosine
        )
        alone = np.array([place.is_alone for place in places])
        at_edge = np.array([place.is_at_edge for place in places])
        total = (
            weights.alone_on_line * alone
            + weights.at_edge_of_answer * at_edge
            + weights.off_subject * (1 - on_subject)
        )
        return np.minimum(1.0, total)

    def _shares(self, ads: Sequence[Ad], logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """The part of a reader's attention that similar ads leave each ad; 0 to 1."""
        offers = self._encoder.encode([ad.offer for ad in ads])
        limits = self._parameters
        alike = _ramp(offers @ offers.T, limits.different_cosine, limits.same_cosine)
        np.fill_diagonal(alike, 1.0)
        odds = np.exp(logits)
        return np.asarray(odds / (alike @ odds), np.float64)

    def _encode_together(
        self, auctions: Sequence[Auction], places: Sequence[Sequence[Placement]]
    ) -> None:
        """Let the encoder meet all texts at once: in batches it is several times as fast."""
        texts: dict[str, None] = {}
        for auction in auctions:
            texts[auction.query.text] = None
            texts.update(dict.fromkeys(profile_texts(auction.user.profile)))
            for ad in auction.ads:
                texts[ad.category or ad.title] = texts[ad.offer] = None
        for found in places:
            texts.update((place.sentence, None) for place in found)
        self._encoder.encode(list(texts))


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the clicks on an answer's ads were judged by; arrays of shape (insertions,)."""

    relevance: NDArray[np.float64]
    match: NDArray[np.float64]
    awkwardness: NDArray[np.float64]
    shares: NDArray[np.float64]

    def reason(self, index: int) -> str:
        """For people, in a few words, about the ad at `index`."""
        parts = ["fits the question" if self.relevance[index] >= _FITS else "beside the question"]
        if self.awkwardness[index] >= _AWKWARD:
            parts.append("sits awkwardly")
        if self.shares[index] <= _COMPETES:
            parts.append("a similar ad competes")
        return ", ".join(parts)


def profile_texts(profile: Profile) -> list[str]:
    """Interests, and what is said of the user sentence by sentence."""
    sentences = (sentence.strip() for sentence in _SENTENCE.split(profile.info))
    return [*profile.interests, *filter(None, sentences)]


def _click(ad_id: str, probability: float, seed: int, reason: str) -> Click:
    """`probability` is rounded, so that the last bits of an embedding do not show."""
    probability = round(probability, _DECIMALS)
    return Click(ad_id, probability, uniform("click", seed, ad_id) < probability, reason)


def _logistic(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float64)


def _ramp(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float64]:
    """0 up to `low`, 1 from `high` on, and straight in between."""
    return np.clip((values.astype(np.float64) - low) / (high - low), 0.0, 1.0)
