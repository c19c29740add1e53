"""Everything that decides a training run, in one frozen value, and those that are published."""

from dataclasses import dataclass, field, replace
from typing import Final

from models.alignment.dpo import DpoOptions, PreferenceLoss
from models.alignment.examples import ExampleOptions
from models.alignment.pctr import PctrOptions
from models.alignment.sampling import SamplingOptions
from models.alignment.trl_training import TrlOptions
from models.alignment.warm_start import WarmStartOptions
from models.engine.interface import Sampling
from models.provision import BASE_MODEL, DEFAULT_MODEL
from models.simulation.auctions import AuctionOptions
from models.simulation.objective import Objective
from models.simulation.world import WorldOptions


@dataclass(frozen=True, slots=True)
class Preset:
    """One alignment, from a base model to an aligned one.

    base: a name or directory that `models.provision` knows. adapter: the model that ships whose
    adapter to go on from; None: from nothing. answers: of the questions of training users, those
    that get an ad-free answer to weave into, beside all in `data/`; 0 skips the warm start.
    auctions: of each epoch's policy phase; reward_samples: answers to each in its reward phase.
    delta: by how much a loser is worse. has_learned_clicks: rewards come from the pCTR model, as
    published; otherwise from the simulated users themselves (the source's "oracle"). trl: train
    with TRL, on GPUs; None: on shared prefixes, which a CPU can afford.
    """

    name: str
    base: str
    adapter: str | None = None
    world: WorldOptions = field(default_factory=WorldOptions)
    auction: AuctionOptions = field(default_factory=AuctionOptions)
    objective: Objective = field(default_factory=Objective)
    answers: int = 1400
    answer_tokens: int = 96
    warm_start: WarmStartOptions = field(default_factory=WarmStartOptions)
    epochs: int = 1
    auctions: int = 200
    reward_samples: int = 10
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    pctr: PctrOptions = field(default_factory=PctrOptions)
    has_learned_clicks: bool = False
    delta: float = 10.0
    dpo: DpoOptions = field(default_factory=DpoOptions)
    trl: TrlOptions | None = None


SMALL: Final = Preset(
    name="small",
    base=BASE_MODEL,
    warm_start=WarmStartOptions(steps=240, learning_rate=1e-3, cool_down=0.5),
    auctions=150,
    reward_samples=3,
    sampling=SamplingOptions(per_auction=4, sampling=Sampling(max_tokens=96)),
    delta=5.0,
    dpo=DpoOptions(learning_rate=1e-4),
)
"""The default model, on two CPU cores, in hours.

delta: an ad where none fits costs the reader 10 and earns next to nothing, so with the source's 10
no answer would lose by it.
"""

REFINE: Final = replace(
    SMALL,
    name="refine",
    adapter=DEFAULT_MODEL,
    warm_start=replace(
        SMALL.warm_start,
        examples=ExampleOptions(seed=12),  # the adapter has seen those of 1 and 11
        steps=340,
        learning_rate=8e-4,
        cool_down=0.6,
    ),
    auctions=300,
)
"""On from the adapter that ships, on examples that it has not seen."""

CLOSE: Final = replace(
    REFINE,
    name="close",
    warm_start=replace(
        SMALL.warm_start,
        examples=ExampleOptions(seed=31, early_share=0.3, has_own_end=True),
        steps=60,
        learning_rate=4e-4,
        cool_down=0.7,
    ),
    epochs=0,
)
"""On from the adapter that ships, to answers that come to an end. All of the way they are short and
less like the base's, so a share of it ships (`align ship --share`)."""

BARE: Final = replace(
    REFINE,
    name="bare",
    warm_start=replace(
        SMALL.warm_start,
        examples=ExampleOptions(seed=51, bare_share=1.0, early_share=1.0),
        steps=20,
        learning_rate=2e-4,
        cool_down=0.7,
    ),
    epochs=0,
)
"""On from the adapter that ships, to answers without candidates, which hold no ads either. All of
the way fewer ads are shown where one fits, too; a share of it keeps more (`align ship --share`)."""

PAPER: Final = Preset(
    name="paper",
    base="Qwen/Qwen3-4B-Instruct-2507",
    answers=0,
    auction=replace(AuctionOptions(), candidates=100),
    epochs=3,
    auctions=12_000,
    sampling=SamplingOptions(per_auction=5, sampling=Sampling(max_tokens=2048)),
    has_learned_clicks=True,
    dpo=DpoOptions(anchor=0.0, learning_rate=1e-6, pairs=4),
    trl=TrlOptions(),
)
"""LLM-Auction (arXiv 2512.10551, section 5.1): full-parameter DPO of a 4B model on GPUs."""

PAPER_GRPO: Final = replace(PAPER, name="paper-grpo", trl=TrlOptions(is_online=True))
"""The same, but trained online."""


def _by_ipo(preset: Preset) -> Preset:
    return replace(
        preset, name=f"{preset.name}-ipo", dpo=replace(preset.dpo, loss=PreferenceLoss.IPO)
    )


_BY_DPO = (SMALL, REFINE, PAPER)
PRESETS: Final = {
    preset.name: preset for preset in (*_BY_DPO, CLOSE, BARE, *map(_by_ipo, _BY_DPO), PAPER_GRPO)
}
