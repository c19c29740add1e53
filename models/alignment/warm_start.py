"""The warm start: supervised training on the base model's own answers with ads woven in."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.alignment.adapter import AdapterTrainer
from models.alignment.examples import (
    ExampleOptions,
    Market,
    Pack,
    Packer,
    TokenKind,
    draw_slates,
    teach,
)
from models.alignment.journal import append_row, keep_rows, open_for_rows
from models.alignment.packing import target_distributions, target_kinds, target_scores
from models.simulation.randomness import generator

WEIGHTS = {
    TokenKind.TEXT: 0.4,
    TokenKind.BOUNDARY: 4.0,
    TokenKind.OPENING: 6.0,
    TokenKind.LEAD: 0.7,
    TokenKind.CHOICE: 4.0,
    TokenKind.MARKER: 1.0,
    TokenKind.OFFER: 0.5,
    TokenKind.END: 1.0,
}
"""How much tokens count: decisions more than what follows from them."""


@dataclass(frozen=True, slots=True)
class WarmStartOptions:
    """How to train. steps: packs in all. The learning rate rises over `warm_up` steps, stays, and
    falls to 0 over the last `cool_down` (a share of the steps)."""

    examples: ExampleOptions = field(default_factory=ExampleOptions)
    steps: int = 240
    learning_rate: float = 1.2e-3
    warm_up: int = 10
    cool_down: float = 0.4
    rank: int = 16
    seed: int = 1
    checkpoint_every: int = 10


def learning_rate(options: WarmStartOptions, step: int) -> float:
    """Of step 0, 1, ... steps - 1."""
    rise = min(1.0, (step + 1) / max(1, options.warm_up))
    fall = min(1.0, (options.steps - step) / max(1.0, options.cool_down * options.steps))
    return options.learning_rate * min(rise, fall)


def make_pack(market: Market, packer: Packer, options: ExampleOptions, number: int) -> Pack:
    """The pack of this number: always the same for the same market and options."""
    chance = generator("teach", options.seed, number)
    slates = [
        slate
        for turn in range(options.lists)
        for slate in draw_slates(market, options, options.lists * number + turn)
    ]
    return packer.pack(
        [
            [
                teach(auction, market.answers[auction.query.text], options, chance)
                for auction in slate.auctions()
            ]
            for slate in slates
        ]
    )


def weighted_loss(scores: Tensor, kinds: Sequence[str]) -> Tensor:
    """-sum(w * score) / sum(w) over the targets of a pack."""
    weights = torch.tensor([WEIGHTS[TokenKind(kind)] for kind in kinds], device=scores.device)
    return -(weights * scores).sum() / weights.sum()


def train(
    trainer: AdapterTrainer,
    next_pack: Callable[[int], Pack],
    shunned: Sequence[int],
    options: WarmStartOptions,
    run_dir: Path,
    progress: Callable[[int], None] = lambda step: None,
) -> None:
    """Train from where `run_dir` has got to; checkpoints and metrics.jsonl are written there.

    shunned: tokens that open a sentence with an ad, unlearnt where none belongs.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    metrics = run_dir / "metrics.jsonl"
    (run_dir / "config.json").write_text(json.dumps(asdict(options), indent=2) + "\n")
    begin = trainer.resume(run_dir)
    keep_rows(metrics, lambda row: row["step"] <= begin)
    for step in range(begin, options.steps):
        started = time.monotonic()
        pack = next_pack(step)
        scores, kinds = _scores(trainer, pack, shunned), target_kinds(pack.tree)
        loss = weighted_loss(scores, kinds)
        loss.backward()
        norm = trainer.update(learning_rate(options, step))
        with open_for_rows(metrics) as file:
            append_row(
                file,
                {
                    "step": step + 1,
                    "loss": round(float(loss.detach()), 4),
                    "gradient_norm": round(norm, 3),
                    "tokens": len(pack.tree) + len(pack.plain),
                    "examples": sum(bool(run.targets) for run in pack.tree.runs),
                    "seconds": round(time.monotonic() - started, 2),
                    **_by_kind(scores, kinds),
                },
            )
        if (step + 1) % options.checkpoint_every == 0 or step + 1 == options.steps:
            trainer.save(run_dir, step + 1)
        progress(step + 1)
    trainer.finish(run_dir)


def _scores(trainer: AdapterTrainer, pack: Pack, shunned: Sequence[int]) -> Tensor:
    taught = None
    if pack.plain.runs:
        with torch.no_grad(), trainer.without_adapter():
            taught = target_distributions(trainer.model, pack.plain)
    return target_scores(trainer.model, pack.tree, shunned, taught)


def _by_kind(scores: Tensor, kinds: Sequence[str]) -> dict[str, Any]:
    """Mean loss of the targets of each kind, in nats; of the base's words, the drift from it."""
    found: dict[str, list[float]] = defaultdict(list)
    for kind, score in zip(kinds, scores.tolist(), strict=True):
        found[kind].append(-score)
    return {kind: round(sum(values) / len(values), 4) for kind, values in sorted(found.items())}
