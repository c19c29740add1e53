"""The policy phase: its losses, and that winners gain on losers by training."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_market import auction

from models.alignment.adapter import AdapterTrainer
from models.alignment.dpo import (
    DpoOptions,
    PreferenceLoss,
    answer_lengths,
    answer_log_probs,
    margins,
    preference_loss,
    preference_tree,
    train_on_preferences,
)
from models.alignment.journal import read_rows
from models.alignment.packing import Tree
from models.alignment.preferences import Preference, Scored
from models.contract.markers import read
from models.engine.tokens import PromptTokenizer
from models.lora import ADAPTER_FILE

OPTIONS = DpoOptions(learning_rate=5e-3, auctions_per_step=1, rank=4, anchor=0.0, passes=6)


def preferences() -> list[Preference]:
    def scored(text: str, reward: float) -> Scored:
        return Scored(read(text, (), 0), reward)

    return [
        Preference(auction(name=name), scored("Yes.", 30), (scored("No.", 1), scored("Why?", 0)))
        for name in ("a", "b")
    ]


@pytest.fixture
def base(tiny_model: Any, tmp_path: Path) -> str:
    tiny_model.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.fixture
def trees(tokenizer: Any) -> list[Tree]:
    prompts = PromptTokenizer(tokenizer)
    return [preference_tree(one, prompts, tokenizer, OPTIONS) for one in preferences()]


class TestLoss:
    def test_dpo_is_log_two_where_nothing_was_gained(self) -> None:
        loss = preference_loss(torch.zeros(3), 0.1, PreferenceLoss.DPO)

        assert float(loss) == pytest.approx(math.log(2))

    def test_dpo_falls_the_further_the_winner_is_ahead(self) -> None:
        losses = [
            float(preference_loss(torch.tensor([gap]), 0.1, PreferenceLoss.DPO))
            for gap in (-5.0, 0.0, 5.0, 50.0)
        ]

        assert losses == sorted(losses, reverse=True)

    def test_ipo_wants_the_winner_ahead_by_a_fixed_margin(self) -> None:
        gaps = torch.tensor([4.0, 5.0, 6.0])
        losses = [float(preference_loss(gap[None], 0.1, PreferenceLoss.IPO)) for gap in gaps]

        assert losses == [1.0, 0.0, 1.0]

    def test_margins_compare_the_first_answer_with_each_other_one(self) -> None:
        found = margins(torch.tensor([-1.0, -5.0, -2.0]), torch.tensor([-2.0, -4.0, -4.0]))

        assert found.tolist() == [2.0, -1.0]


def test_an_answer_has_an_end_to_learn_where_the_model_chose_it(tokenizer: Any) -> None:
    one = preferences()[0]
    cut = replace(one, winner=replace(one.winner, is_whole=False))
    prompts = PromptTokenizer(tokenizer)
    whole, shorter = (
        preference_tree(case, prompts, tokenizer, OPTIONS).runs[1] for case in (one, cut)
    )

    assert whole.tokens == (*shorter.tokens, tokenizer.eos_token_id)
    assert len(whole.targets) == len(shorter.targets) + 1


def test_ipo_asks_for_a_margin_a_token(base: str, tokenizer: Any, tmp_path: Path) -> None:
    """Of two pairs that gain as much in all, the longer answers have the smaller margin."""
    options = replace(OPTIONS, loss=PreferenceLoss.IPO, passes=1, beta=0.5)
    one = preferences()[0]
    tree = preference_tree(one, PromptTokenizer(tokenizer), tokenizer, options)
    trainer = AdapterTrainer(base, OPTIONS.rank, seed=1)
    log_probs = answer_log_probs(trainer.model, tree).detach()
    lengths = torch.tensor(answer_lengths(tree))
    assert lengths.tolist() == [5, 4, 5]
    (tmp_path / "run").mkdir()
    torch.save([log_probs - torch.tensor([10.0, 4.0, 5.0])], tmp_path / "run" / "references.pt")
    train_on_preferences(trainer, [tree], options, tmp_path / "run")

    # gains of 2, 1 and 1 nats a token, against 1 / (2 beta) = 1
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[0]["loss"] == pytest.approx(0, abs=1e-3)


class TestTraining:
    def test_winners_gain_on_losers(self, base: str, trees: list[Tree], tmp_path: Path) -> None:
        trainer = AdapterTrainer(base, OPTIONS.rank, seed=1)
        before = [answer_log_probs(trainer.model, tree).detach() for tree in trees]
        train_on_preferences(trainer, trees, OPTIONS, tmp_path / "run")
        after = [answer_log_probs(trainer.model, tree).detach() for tree in trees]

        for log_probs, reference in zip(after, before, strict=True):
            assert margins(log_probs, reference).min() > 0.5
        rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
        assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
        assert rows[-1]["preferred"] == 1.0

    def test_without_preferences_the_policy_stays_what_it_was(
        self, base: str, tmp_path: Path
    ) -> None:
        trainer = AdapterTrainer(base, OPTIONS.rank, seed=1)
        trainer.finish(tmp_path / "before")
        train_on_preferences(trainer, [], OPTIONS, tmp_path / "run")

        kept = [load_file(tmp_path / name / "adapter" / ADAPTER_FILE) for name in ("before", "run")]
        assert all(torch.equal(kept[1][name], weight) for name, weight in kept[0].items())

    def test_a_finished_run_is_not_trained_again(
        self, base: str, trees: list[Tree], tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        train_on_preferences(AdapterTrainer(base, OPTIONS.rank, seed=1), trees, OPTIONS, run)
        lines = (run / "metrics.jsonl").read_text()
        train_on_preferences(AdapterTrainer(base, OPTIONS.rank, seed=1), trees, OPTIONS, run)

        assert (run / "metrics.jsonl").read_text() == lines

    def test_a_run_killed_between_checkpoints_has_no_adapter_and_each_step_once(
        self, base: str, trees: list[Tree], tmp_path: Path
    ) -> None:
        def kill(step: int) -> None:
            if step == 11:
                raise KeyboardInterrupt

        run = tmp_path / "run"
        trainer = AdapterTrainer(base, OPTIONS.rank, seed=1)
        with pytest.raises(KeyboardInterrupt):
            train_on_preferences(trainer, trees, OPTIONS, run, kill)
        assert not (run / "adapter").exists()

        train_on_preferences(AdapterTrainer(base, OPTIONS.rank, seed=1), trees, OPTIONS, run)
        assert (run / "adapter" / ADAPTER_FILE).exists()
        assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == list(range(1, 13))
