"""The stages of an alignment, in their order. Each goes on where a killed one has stopped.

answers -> warm start -> (reward phase: sample, fit pCTR -> policy phase: sample, prefer, DPO)*
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.alignment.adapter import AdapterTrainer
from models.alignment.answers import OpenEngine, complete, read_answers, write_answers
from models.alignment.catalogue import load_further_questions, load_invented_market
from models.alignment.dpo import preference_tree, train_on_preferences
from models.alignment.examples import Market, Packer
from models.alignment.journal import read_rows, write_rows
from models.alignment.pctr import PctrFit, PctrModel, Showing, assess, fit
from models.alignment.preferences import Preference, Scored, prefer
from models.alignment.run import Run
from models.alignment.sampling import Sampled, sample
from models.alignment.trl_training import train_dpo, train_grpo
from models.alignment.warm_start import make_pack, train
from models.contract.markers import read
from models.contract.reading import Reading
from models.engine.interface import Sampling
from models.engine.tokens import PromptTokenizer
from models.provision import shipped_adapter
from models.simulation.auctions import draw_auctions
from models.simulation.click_model import ClickModel
from models.simulation.embeddings import Encoder
from models.simulation.nouns import Auction, Exposure, Query, Split
from models.simulation.randomness import derived_seed
from models.simulation.world import World

Progress = Callable[[int], None]

_HELD_OUT_SHARE = 0.2


def training_questions(run: Run, world: World) -> list[Query]:
    """What training users ask in this run: some of the world's own questions, and further ones
    about what the world's ads are for, or about nothing of the kind."""
    chance = random.Random(run.preset.warm_start.seed)
    queries = world.queries_of(Split.TRAIN)
    chance.shuffle(queries)
    users = [user.user_id for user in world.users if user.split is Split.TRAIN]
    sold = {None, *(ad.category for ad in world.ads)}
    return queries[: run.preset.answers or None] + [
        Query(f"further-{number}", chance.choice(users), text, category)
        for number, (category, text) in enumerate(load_further_questions())
        if category in sold
    ]


def invented_questions(run: Run) -> list[Query]:
    """Questions about invented ads."""
    chance = random.Random(run.preset.warm_start.seed)
    return [
        Query(f"invented-{number}", "", text, category)
        for number, (category, text) in enumerate(load_invented_market().written(chance, 2))
    ]


def questions_to_answer(run: Run, world: World) -> list[Query]:
    """All that get an ad-free answer."""
    return invented_questions(run) + training_questions(run, world)


async def answer_questions(
    run: Run, world: World, open_engine: OpenEngine, progress: Progress
) -> None:
    """Have the base model answer without ads."""
    await write_answers(
        open_engine,
        [query.text for query in questions_to_answer(run, world)],
        run.answers,
        Sampling(max_tokens=run.preset.answer_tokens, seed=run.preset.warm_start.seed),
        progress,
    )


def warm_start(run: Run, world: World, base: str, tokenizer: Any, progress: Progress) -> None:
    """Train the adapter of the warm start."""
    options = run.preset.warm_start
    answers = {text: kept for text, kept in read_answers(run.answers).items() if complete(kept)}
    market = Market(
        [user for user in world.users if user.split is Split.TRAIN],
        world.ads,
        load_invented_market(),
        [query for query in training_questions(run, world) if query.text in answers],
        [query for query in invented_questions(run) if query.text in answers],
        answers,
    )
    packer = Packer(tokenizer, options.examples)

    def next_pack(number: int) -> Any:
        return make_pack(market, packer, options.examples, number)

    begin = shipped_adapter(run.preset.adapter).directory if run.preset.adapter else None
    trainer = AdapterTrainer(base, options.rank, options.seed, begin)
    train(trainer, next_pack, packer.openings(), options, run.warm_start, progress)


def epoch_auctions(run: Run, world: World, epoch: int, phase: str) -> list[Auction]:
    """Auctions of training users at fresh bids."""
    seed = derived_seed("alignment", run.preset.dpo.seed, epoch, phase)
    asking = replace(world, queries=tuple(training_questions(run, world)))
    return draw_auctions(asking, Split.TRAIN, run.preset.auctions, seed, run.preset.auction)


async def reward_phase(
    run: Run,
    world: World,
    users: ClickModel,
    open_engine: OpenEngine,
    epoch: int,
    progress: Progress,
) -> list[Showing]:
    """Sample answers and collect simulated clicks on them."""
    auctions = epoch_auctions(run, world, epoch, "reward")
    options = replace(run.preset.sampling, per_auction=run.preset.reward_samples)
    path = run.epoch(epoch) / "reward.jsonl"
    shown = exposures(auctions, await sample(open_engine, auctions, options, path, progress))
    clicks = await users.clicks(shown)
    return [
        Showing(exposure, click.ad_id, click.clicked)
        for exposure, found in zip(shown, clicks, strict=True)
        for click in found
    ]


def fit_pctr(showings: Sequence[Showing], encoder: Encoder, run: Run) -> tuple[PctrModel, PctrFit]:
    """Fit to the showings of four fifths of the users; assess on the others'."""
    seed = run.preset.pctr.seed
    held_out = {
        user
        for user in {showing.user_id for showing in showings}
        if derived_seed("pctr", seed, user) % 100 < 100 * _HELD_OUT_SHARE
    }
    model = fit(encoder, [s for s in showings if s.user_id not in held_out], run.preset.pctr)
    return model, assess(model, [s for s in showings if s.user_id in held_out])


async def policy_phase(
    run: Run,
    world: World,
    users: ClickModel,
    pctr: PctrModel | None,
    open_engine: OpenEngine,
    epoch: int,
    progress: Progress,
) -> None:
    """Sample answers at fresh bids, and keep them with their rewards, for `preferences`.

    pctr: what clicks are predicted by; None: the simulated users' own probabilities.
    """
    auctions = epoch_auctions(run, world, epoch, "policy")
    path = run.epoch(epoch) / "samples.jsonl"
    sampled = await sample(open_engine, auctions, run.preset.sampling, path, progress)
    rewards = iter(_rewards(run, exposures(auctions, sampled), users, pctr))
    write_rows(
        run.scored(epoch),
        (
            {
                "auction": auction.auction_id,
                "answer": answer.text,
                "is_whole": answer.is_whole,
                "reward": next(rewards),
            }
            for auction, answers in zip(auctions, sampled, strict=True)
            for answer in answers
        ),
    )


def preferences(run: Run, world: World, epoch: int) -> list[Preference]:
    """Winners and losers among the answers that `policy_phase` has kept."""
    rows = defaultdict(list)
    for row in read_rows(run.scored(epoch)):
        rows[row["auction"]].append(row)
    max_ads = run.preset.sampling.max_ads
    found = []
    for auction in epoch_auctions(run, world, epoch, "policy"):
        markers = [ad.marked for ad in auction.ads]
        scored = [
            Scored(read(row["answer"], markers, max_ads), row["reward"], row["is_whole"])
            for row in rows[auction.auction_id]
        ]
        found.append(prefer(auction, scored, run.preset.delta))
    return [preference for preference in found if preference is not None]


def train_policy(
    run: Run,
    preferences: Sequence[Preference],
    base: str,
    policy: str,
    tokenizer: Any,
    epoch: int,
    progress: Progress,
) -> None:
    """Train the policy of `epoch` on `preferences`: its adapter on `base`, by shared prefixes; or
    all of it, or a new adapter, with TRL."""
    options, directory = run.preset.dpo, run.epoch(epoch) / "dpo"
    if run.preset.trl is not None:
        if not _is_trained(directory):
            train_dpo(policy, tokenizer, preferences, options, run.preset.trl, directory)
        return
    prompts = PromptTokenizer(tokenizer)
    trees = [preference_tree(one, prompts, tokenizer, options) for one in preferences]
    trainer = AdapterTrainer(base, options.rank, options.seed, run.adapter_before(epoch))
    train_on_preferences(trainer, trees, options, directory, progress)


def train_online(
    run: Run,
    world: World,
    users: ClickModel,
    pctr: PctrModel | None,
    policy: str,
    tokenizer: Any,
    epoch: int,
) -> None:
    """Train the policy of `epoch` on answers that TRL draws from it as it changes."""
    options, directory = run.preset.trl, run.epoch(epoch) / "dpo"
    if options is None or _is_trained(directory):
        return

    def reward(answers: Sequence[tuple[Auction, Reading]]) -> list[float]:
        return _rewards(run, [Exposure(*answer) for answer in answers], users, pctr)

    auctions = epoch_auctions(run, world, epoch, "policy")
    train_grpo(policy, tokenizer, auctions, reward, run.preset.dpo, options, directory)


def _is_trained(directory: Path) -> bool:
    return any((directory / name).is_dir() for name in ("adapter", "model"))


def _rewards(
    run: Run, exposures: Sequence[Exposure], users: ClickModel, pctr: PctrModel | None
) -> list[float]:
    clicks = users.clicks_now(exposures)
    if pctr is not None:
        showings = [
            Showing(exposure, click.ad_id)
            for exposure, found in zip(exposures, clicks, strict=True)
            for click in found
        ]
        predicted = iter(pctr.probabilities(showings))
        clicks = [
            tuple(replace(click, probability=float(next(predicted))) for click in found)
            for found in clicks
        ]
    return [
        run.preset.objective.reward(exposure.auction, exposure.reading, found)
        for exposure, found in zip(exposures, clicks, strict=True)
    ]


def exposures(auctions: Sequence[Auction], sampled: Sequence[Sequence[Sampled]]) -> list[Exposure]:
    """Each answer is shown for itself: its clicks are drawn apart from the others'."""
    return [
        Exposure(replace(auction, seed=derived_seed("shown", auction.seed, number)), answer.reading)
        for auction, answers in zip(auctions, sampled, strict=True)
        for number, answer in enumerate(answers)
    ]


def servable_tokenizer(path: Path) -> Any:
    """The tokenizer of the servable model in `path`."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)
