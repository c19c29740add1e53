"""What is kept of an outcome: one line of JSON with all that the measures need."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from models.contract.reading import SegmentKind
from models.evaluation.config import Study
from models.evaluation.mechanism import Outcome
from models.evaluation.plan import Sweep, Task
from models.simulation.nouns import Click


@dataclass(frozen=True, slots=True)
class Bidder:
    """A candidate of the auction, in the request's order.

    click_potential: of an ad that fits, its click probability where it stands natively in the
    ad-free answer; None where it was not taken.
    """

    ad_id: str
    category: str
    bid: int
    click_potential: float | None = None


@dataclass(frozen=True, slots=True)
class Showing:
    """An ad in the answer. probability: of a click, 0 to 1. price: units of currency per event."""

    ad_id: str
    bid: int
    probability: float
    clicked: bool
    event: Literal["click", "impression"]
    price: Decimal

    @property
    def expected_payment(self) -> float:
        """Units of currency that the advertiser owes for this answer on average."""
        return float(self.price) * (self.probability if self.event == "click" else 1.0)


@dataclass(frozen=True, slots=True)
class Record:
    """One outcome, with who would click.

    answer: raw, with markers. plain: without its ads. similarity: of `plain` to the ad-free
    reference answer, -1 to 1; None where it was not taken. reward: R. draw_rewards: of the
    policy's draws, in Study.OPTIMUM only.
    """

    key: str
    study: Study
    mechanism: str
    auction_id: str
    row: str
    query_id: str
    category: str | None
    bidders: tuple[Bidder, ...]
    sweep: Sweep | None
    answer: str
    plain: str
    showings: tuple[Showing, ...]
    faults: tuple[str, ...]
    reward: float
    similarity: float | None
    model_calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    draw_rewards: tuple[float, ...] = ()

    @property
    def revenue(self) -> float:
        """What advertisers pay for this answer on average, over clicks, in units of currency."""
        return sum(showing.expected_payment for showing in self.showings)

    @property
    def value(self) -> float:
        """What the advertisers get on average, at the values that they declare."""
        return sum(showing.bid * showing.probability for showing in self.showings)

    def shows(self, ad_id: str) -> bool:
        return any(showing.ad_id == ad_id for showing in self.showings)

    def click_probability(self, ad_id: str) -> float:
        """0 where the ad is not shown."""
        return sum(s.probability for s in self.showings if s.ad_id == ad_id)

    def payment(self, ad_id: str) -> float:
        """The ad's expected payment in units of currency."""
        return sum(s.expected_payment for s in self.showings if s.ad_id == ad_id)


_RECORD = TypeAdapter(Record)


class RecordsDamaged(Exception):
    """A file of records has a line that cannot be read; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Against:
    """What an outcome is held against: its similarity to the ad-free answer, and by id, what the
    ads that fit could have come to (`Bidder.click_potential`)."""

    similarity: float | None
    potentials: Mapping[str, float]


def record(
    task: Task,
    outcome: Outcome,
    clicks: tuple[Click, ...],
    reward: float,
    against: Against | None = None,
    draw_rewards: tuple[float, ...] = (),
) -> Record:
    """Return what to keep of `outcome`, which `task` came to."""
    against = against or Against(None, {})
    auction, reading = task.auction, outcome.reading
    bids = {ad.ad_id: bid for ad, bid in zip(auction.ads, auction.bids, strict=True)}
    return Record(
        key=task.key,
        study=task.study,
        mechanism=task.mechanism,
        auction_id=auction.auction_id,
        row=task.row,
        query_id=auction.query.query_id,
        category=auction.query.category,
        bidders=tuple(
            Bidder(ad.ad_id, ad.category, bids[ad.ad_id], against.potentials.get(ad.ad_id))
            for ad in auction.ads
        ),
        sweep=task.sweep,
        answer=reading.answer,
        plain=plain_text(outcome),
        showings=tuple(
            Showing(
                click.ad_id,
                bids[click.ad_id],
                click.probability,
                click.clicked,
                price.event,
                price.amount,
            )
            for click, price in zip(clicks, outcome.prices, strict=True)
        ),
        faults=tuple(fault.kind.value for fault in reading.faults),
        reward=reward,
        similarity=against.similarity,
        model_calls=outcome.model_calls,
        prompt_tokens=outcome.prompt_tokens,
        cached_tokens=outcome.cached_tokens,
        completion_tokens=outcome.completion_tokens,
        draw_rewards=draw_rewards,
    )


def plain_text(outcome: Outcome) -> str:
    """Return the answer without its ads."""
    texts = (s.text for s in outcome.reading.segments if s.kind is SegmentKind.TEXT)
    return "".join(texts).strip()


def to_line(one: Record) -> bytes:
    return _RECORD.dump_json(one) + b"\n"


def read_records(file: Path) -> tuple[list[Record], int]:
    """Return the records in `file`, none where it is missing, and where the last one ends (bytes).

    Of several with one key the first counts. A last line without an end was being written when its
    writer died: it is left out. Raises RecordsDamaged for any other line that cannot be read.
    """
    if not file.exists():
        return [], 0
    content = file.read_bytes()
    end = content.rfind(b"\n") + 1
    records: dict[str, Record] = {}
    for number, line in enumerate(content[:end].splitlines(), start=1):
        try:
            one = _RECORD.validate_json(line)
            records.setdefault(one.key, one)
        except ValidationError as error:
            wrong = error.errors()[0]
            place = ".".join(map(str, wrong["loc"])) or "the line"
            raise RecordsDamaged(
                f"{file}, line {number}: {place}: {wrong['msg']}; delete the line to have its "
                "answer taken again"
            ) from error
    return list(records.values()), end
