"""Even pacing: a daily budget that lasts the day.

Pure, and without memory. The even line is `elapsed × budget`: what would be spent by now if spend
were spread evenly over the day. An ad takes part in an answer with the probability

    p = clamp((elapsed + LEAD - spent / budget) / LEAD, 0, 1)

so it always does while its spend is on the line or behind, ever less often as spend runs ahead, and
never once spend is `LEAD` of the daily budget ahead. Under steady demand that would spend r > 1
times the budget, spend settles at LEAD × (1 - 1/r) ahead of the line. It may exceed the bound by
charges that are still to come for answers already given: at the most, as ever, up to the budget.

Whether an ad takes part is drawn from a keyed hash of answer and ad, so that a decision can be
reckoned again from its receipt.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from datetime import date as Date
from hashlib import blake2b
from zoneinfo import ZoneInfo

LEAD = 0.05
"""How far spend may run ahead of the even line, as a share of the daily budget."""

_DRAWS = 1 << 64


@dataclass(frozen=True, slots=True)
class Pace:
    """Even pacing for one answer. `elapsed`: the share of the day gone by, 0 to 1.

    salt: up to 64 bytes, known to the deployment alone, so that nobody can choose his draw.
    """

    elapsed: float
    response_id: str
    salt: bytes

    def lets(self, ad_id: str, spent_micros: int, daily_micros: int) -> bool:
        """Whether an ad takes part, of whose daily budget `spent_micros` were spent today."""
        chance = participation(self.elapsed, spent_micros, daily_micros)
        return draw(self.salt, self.response_id, ad_id) < chance


def participation(elapsed: float, spent_micros: int, daily_micros: int) -> float:
    """The probability, 0 to 1, that an ad with this spend takes part at `elapsed` (0 to 1)."""
    if daily_micros == 0:
        return 0.0
    lead = spent_micros / daily_micros - elapsed
    return min(1.0, max(0.0, (LEAD - lead) / LEAD))


def draw(salt: bytes, response_id: str, ad_id: str) -> float:
    """A number in [0, 1), the same for the same answer and ad; even over answers and over ads."""
    place = f"{response_id}\0{ad_id}".encode()
    digest = blake2b(place, digest_size=8, key=salt, person=b"pacing").digest()
    # 53 bits: more would round up to 1.0
    return (int.from_bytes(digest, "big") >> 11) / (_DRAWS >> 11)


def elapsed_share(now: datetime, zone: ZoneInfo) -> float:
    """How much of the calendar day in `zone` has gone by at `now` (aware): 0 to below 1.

    Days on which clocks change have 23 or 25 hours and are reckoned so.
    """
    day = now.astimezone(zone).date()
    begin, end = _midnight(day, zone), _midnight(day + timedelta(days=1), zone)
    return (now - begin) / (end - begin)


def _midnight(day: Date, zone: ZoneInfo) -> datetime:
    # in UTC, since differences within one zone ignore its changes of the clock
    return datetime.combine(day, time(), zone).astimezone(UTC)
