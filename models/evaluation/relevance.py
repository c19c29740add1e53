"""How well ads fit a query, by embeddings: what mechanisms that do not read answers rank with."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from models.simulation.embeddings import Encoder
from models.simulation.nouns import Ad


class Relevance(Protocol):
    """What a mechanism knows of an ad's fit before anything is written."""

    def weights(self, query: str, ads: Sequence[Ad]) -> list[float]:
        """Return for each ad a number over 0; twice as much counts like twice the bid."""
        ...

    def closeness(self, ad: Ad, texts: Sequence[str]) -> list[float]:
        """Return for each text how close it is to the ad, -1 to 1."""
        ...


class EmbeddingRelevance:
    """exp(cosine / temperature): the retriever's form in retrieval-augmented generation.

    temperature: 0.1 makes an ad that fits (a cosine of about 0.5) count about 50 times as much as
    one that does not (0.1).
    """

    def __init__(self, encoder: Encoder, temperature: float = 0.1) -> None:
        self._encoder = encoder
        self._temperature = temperature

    def weights(self, query: str, ads: Sequence[Ad]) -> list[float]:
        vectors = self._encoder.encode([query, *map(_text, ads)])
        cosines = vectors[1:] @ vectors[0]
        return [float(weight) for weight in np.exp(cosines / self._temperature)]

    def closeness(self, ad: Ad, texts: Sequence[str]) -> list[float]:
        vectors = self._encoder.encode([_text(ad), *texts])
        return [float(cosine) for cosine in vectors[1:] @ vectors[0]]


def _text(ad: Ad) -> str:
    return f"{ad.title}. {ad.category}. {ad.description}"
