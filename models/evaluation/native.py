"""An answer that was written without ads, and one put into it as natively as a rule can."""

from models.contract.markers import Reading, read
from models.simulation.nouns import Ad


def natively(answer: str, ad: Ad) -> Reading:
    """Return `answer`, which has no ads, with `ad` recommended after its first sentence."""
    first, end, rest = answer.partition(". ")
    offer = ad.description.rstrip(".") or ad.category
    recommended = f"For this, {ad.marked.marker} is a good fit: {offer}."
    text = f"{first.rstrip('.')}. {recommended} {rest if end else first}"
    return read(text, [ad.marked], 1)
