"""Winners and losers: what the policy phase learns from. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from models.contract.reading import FaultKind, Reading
from models.simulation.nouns import Auction


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer to an auction and its reward R (`models.simulation.objective`).

    is_whole: the model ended it, not the limit on its length.
    """

    reading: Reading
    reward: float
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Preference:
    """The best answer to an auction, and those worse by more than delta, different texts all."""

    auction: Auction
    winner: Scored
    losers: tuple[Scored, ...]


def prefer(auction: Auction, answers: Sequence[Scored], delta: float) -> Preference | None:
    """Return what is to be learnt from `answers`, or None where none is worse by over `delta`.

    After LLM-Auction (arXiv 2512.10551, section 4): the winner has the highest reward, the losers
    are `{y : R(winner) - R(y) > delta}`. Of equally good answers the first wins. One that was cut
    off within a marker is passed over: what it is punished for does not stand in its text.
    """
    judged = [scored for scored in answers if not _ends_in_a_marker(scored.reading)]
    ranked = sorted(zip(judged, count(), strict=False), key=lambda pair: (-pair[0].reward, pair[1]))
    if not ranked:
        return None
    winner = ranked[0][0]
    losers = {
        scored.reading.answer: scored
        for scored, _ in ranked
        if winner.reward - scored.reward > delta
        and scored.reading.answer not in ("", winner.reading.answer)
    }
    if not losers or not winner.reading.answer:
        return None
    return Preference(auction, winner, tuple(losers.values()))


def _ends_in_a_marker(reading: Reading) -> bool:
    return any(fault.kind is FaultKind.TRUNCATED for fault in reading.faults)
