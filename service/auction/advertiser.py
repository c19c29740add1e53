"""The advertiser: whose ads they are, and what they may spend together."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from service.auction.ad import Budget, Identifier


class AdvertiserFields(BaseModel):
    """All of an advertiser but its id. An advertiser that was never entered has the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["active", "paused"] = Field(
        default="active", description="`paused` keeps all of its ads out of new answers"
    )
    budget: Budget = Field(default=Budget(), description="For all of its ads together")


class Advertiser(AdvertiserFields):
    """An advertiser as it is kept."""

    advertiser_id: Identifier = Field(examples=["adv-trailhead"])

    @classmethod
    def identified(cls, advertiser_id: str, fields: AdvertiserFields) -> Self:
        """`fields`, already checked, under `advertiser_id`."""
        return cls(advertiser_id=advertiser_id, status=fields.status, budget=fields.budget)
