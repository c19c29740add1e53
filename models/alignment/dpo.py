"""The policy phase: learn from preferences, against the policy that they were sampled from.

The winner and the losers of an auction are branches of one prompt (`packing`), so a step costs
little more than one example; that is what a CPU can afford. `trl_training` does the same with TRL
for models that train on GPUs.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.alignment.adapter import AdapterTrainer
from models.alignment.examples import auction_prompt
from models.alignment.journal import append_row, keep_rows, open_for_rows
from models.alignment.packing import Run, Target, Tree, target_log_probs
from models.alignment.preferences import Preference
from models.contract.prompt import Layout
from models.engine.tokens import PromptTokenizer
from models.simulation.randomness import generator


class PreferenceLoss(StrEnum):
    """How far the winner has to be from a loser."""

    DPO = "dpo"
    """As far as possible, with falling zeal (arXiv 2305.18290)."""
    IPO = "ipo"
    """By 1 / (2 beta) a token, so that clear preferences are not overdone (arXiv 2310.12036). Each
    answer counts by its mean over its tokens, as TRL and by its account the paper's authors do."""


@dataclass(frozen=True, slots=True)
class DpoOptions:
    """How to train. passes: over all preferences. pairs: losers of an auction, at most.

    beta: weighs nats of an answer; with IPO, nats a token. anchor: weight of the winner's mean
    negative log-probability, which keeps it from sinking together with the losers.
    """

    loss: PreferenceLoss = PreferenceLoss.DPO
    beta: float = 0.1
    anchor: float = 0.05
    learning_rate: float = 2e-5
    warm_up_share: float = 0.1
    passes: int = 1
    pairs: int = 3
    auctions_per_step: int = 4
    layout: Layout = Layout.INLINE
    rank: int = 16
    seed: int = 1


def preference_loss(margins: Tensor, beta: float, kind: PreferenceLoss) -> Tensor:
    """The mean loss. margins, [pairs]: by how much more the policy prefers the winner to the loser
    than the reference does, in nats; for IPO, in nats a token."""
    if kind is PreferenceLoss.DPO:
        return -F.logsigmoid(beta * margins).mean()
    return ((margins - 1 / (2 * beta)) ** 2).mean()


def preference_tree(
    preference: Preference, prompts: PromptTokenizer, tokenizer: Any, options: DpoOptions
) -> Tree:
    """The prompt, then the winner's answer and the losers', each with all its tokens as targets;
    its end is one where the model chose it."""
    prompt = prompts.encode(auction_prompt(options.layout, preference.auction))
    tree = Tree()
    root = tree.add(Run(tuple(prompt)))
    for scored in (preference.winner, *preference.losers[-options.pairs :]):
        tokens = tokenizer(scored.reading.answer, add_special_tokens=False)["input_ids"]
        if scored.is_whole:
            tokens = [*tokens, tokenizer.eos_token_id]
        tree.add(Run(tuple(tokens), root, tuple(Target(i) for i in range(len(tokens)))))
    return tree


def answer_log_probs(model: Any, tree: Tree) -> Tensor:
    """[answers]: the log-probability of each branch of `tree`, summed over its tokens."""
    parts = target_log_probs(model, tree).split(answer_lengths(tree))
    return torch.stack([part.sum() for part in parts])


def answer_lengths(tree: Tree) -> list[int]:
    """[answers]: the tokens of each branch of `tree`."""
    return [len(run.targets) for run in tree.runs if run.targets]


def margins(log_probs: Tensor, reference: Tensor) -> Tensor:
    """[losers]: the winner, first of both, against each other answer."""
    gained = log_probs - reference
    return gained[0] - gained[1:]


def train_on_preferences(
    trainer: AdapterTrainer,
    trees: Sequence[Tree],
    options: DpoOptions,
    run_dir: Path,
    progress: Callable[[int], None] = lambda step: None,
) -> None:
    """Train from where `run_dir` has got to. The trainer begins as the reference of the epoch,
    and stays that where there is nothing to prefer."""
    run_dir.mkdir(parents=True, exist_ok=True)
    metrics = run_dir / "metrics.jsonl"
    (run_dir / "config.json").write_text(json.dumps(asdict(options), indent=2) + "\n")
    references = _references(trainer, trees, run_dir)
    order = _order(len(trees), options)
    steps = [
        order[start : start + options.auctions_per_step]
        for start in range(0, len(order), options.auctions_per_step)
    ]
    begin = trainer.resume(run_dir)
    keep_rows(metrics, lambda row: row["step"] <= begin)
    for step in range(begin, len(steps)):
        started = time.monotonic()
        losses, wins = [], []
        for index in steps[step]:
            log_probs = answer_log_probs(trainer.model, trees[index])
            lengths = torch.tensor(answer_lengths(trees[index]), device=log_probs.device)
            reference = references[index].to(log_probs.device)
            scale = lengths if options.loss is PreferenceLoss.IPO else 1
            gaps = margins(log_probs / scale, reference / scale)
            loss = preference_loss(gaps, options.beta, options.loss)
            loss = loss - options.anchor * log_probs[0] / lengths[0]
            (loss / len(steps[step])).backward()
            losses.append(float(loss.detach()))
            wins += (gaps > 0).tolist()
        norm = trainer.update(_learning_rate(options, step, len(steps)))
        with open_for_rows(metrics) as file:
            append_row(
                file,
                {
                    "step": step + 1,
                    "loss": round(sum(losses) / len(losses), 4),
                    "preferred": round(sum(wins) / len(wins), 3),
                    "gradient_norm": round(norm, 3),
                    "seconds": round(time.monotonic() - started, 2),
                },
            )
        if (step + 1) % 10 == 0 or step + 1 == len(steps):
            trainer.save(run_dir, step + 1)
        progress(step + 1)
    trainer.finish(run_dir)


def _references(trainer: AdapterTrainer, trees: Sequence[Tree], run_dir: Path) -> list[Tensor]:
    """The reference's log-probabilities, computed once, before the first step."""
    path = run_dir / "references.pt"
    if path.exists():
        kept: list[Tensor] = torch.load(path, weights_only=True)
        return kept
    with torch.no_grad():
        references = [answer_log_probs(trainer.model, tree).cpu() for tree in trees]
    partial = path.with_suffix(".partial")
    torch.save(references, partial)
    os.replace(partial, path)
    return references


def _order(count: int, options: DpoOptions) -> list[int]:
    order = []
    for number in range(options.passes):
        turn = list(range(count))
        generator("preferences", options.seed, number).shuffle(turn)
        order += turn
    return order


def _learning_rate(options: DpoOptions, step: int, steps: int) -> float:
    """Rising over `warm_up_share` of the steps, then falling to 0 in a straight line."""
    rise = (step + 1) / max(1.0, options.warm_up_share * steps)
    return options.learning_rate * min(1.0, rise, (steps - step) / steps)
