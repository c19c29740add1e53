"""Every number of the click model, with what it means and where it comes from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClickParameters:
    """What the click model (`click_model`) is made of; weights are in logits.

    Relevance of an ad to a query, 0 to 1: the logistic function of `relevance_base`, plus
    `relevance_by_category` times the cosine of query and category, plus `relevance_by_offer` times
    that of query and "category: description". The two weights are those of a logistic regression
    on the default world's queries, fitting and other ads weighing the same. Its base, -4.6, is
    lowered to -6, since most ads of a list do not fit.

    A click: the logistic function of `click_base + by_relevance * relevance + by_profile * match -
    by_awkwardness * awkwardness`, then less for competition, none where the answer is flooded.
    These are set so that over the default world a fitting ad in a native place is clicked in about
    45 of 100 answers, any other in 1 or 2, as `llm-auction simulate inspect --clicks` shows.
    """

    relevance_base: float = -6.0
    relevance_by_category: float = 10.8
    relevance_by_offer: float = 16.3

    click_base: float = -5.0
    by_relevance: float = 5.6
    by_profile: float = 3.0
    """match: largest cosine of the ad with an interest or a sentence about the user, less
    `usual_match`."""
    usual_match: float = 0.2

    by_awkwardness: float = 1.6
    """awkwardness: 0 (woven in) to 1; the sum of what follows, at most 1."""
    alone_on_line: float = 0.9
    at_edge_of_answer: float = 0.6
    off_subject: float = 0.7
    """Of a sentence on another subject; all of it at a cosine of sentence and ad up to
    `off_subject_cosine`, nothing from `on_subject_cosine` on."""
    off_subject_cosine: float = 0.1
    on_subject_cosine: float = 0.35

    different_cosine: float = 0.45
    """Ads up to this alike do not compete; from `same_cosine` on they compete in full: each gets
    its odds' share of one reader's attention."""
    same_cosine: float = 0.7

    by_further_ad: float = 0.3
    """Less for every ad of the answer for each other ad in it."""
    most_ads: int = 4
    """More flood an answer: no clicks."""
    fewest_words_per_ad: float = 8.0
    """Fewer words of text for each of several ads flood it, too."""
    by_ad_talk: float = 0.7
    """Less for one phrase of ad talk ("sponsored", "buy now")."""
    most_ad_talk: int = 2
    """More phrases than that put readers off: no clicks."""
