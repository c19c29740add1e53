"""Supervised training: it learns, it can be killed, and it goes on where it was."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_market import ADS, auction

from models.alignment.adapter import AdapterTrainer
from models.alignment.examples import Example, ExampleOptions, Pack, Packer, TokenKind
from models.alignment.packing import target_distributions
from models.alignment.warm_start import (
    WEIGHTS,
    WarmStartOptions,
    learning_rate,
    train,
    weighted_loss,
)
from models.alignment.weave import Woven

OPTIONS = WarmStartOptions(steps=12, rank=4, warm_up=2, learning_rate=1e-2, checkpoint_every=4)
SHUNNED = (70, 87)
NextPack = Callable[[int], Pack]


@pytest.fixture
def base(tiny_model: Any, tmp_path: Path) -> str:
    tiny_model.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.fixture
def next_pack(tokenizer: Any) -> NextPack:
    packer = Packer(tokenizer, ExampleOptions(early_share=0.0, text_stride=1))
    marked = Woven("Yes. Try @Mossrunner 3@[Ad-1].", sentence=(4, 30), marker=(9, 29))
    examples = [
        Example(auction(name="a"), marked, ADS[0]),
        Example(auction(name="b", query="2+2?", category=None), Woven("It is 4."), None),
    ]
    pack = packer.pack([examples])
    return lambda number: pack


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


class TestTraining:
    def test_the_loss_falls(self, base: str, next_pack: NextPack, tmp_path: Path) -> None:
        train(AdapterTrainer(base, OPTIONS.rank, 1), next_pack, SHUNNED, OPTIONS, tmp_path / "run")
        rows = metrics(tmp_path / "run")

        assert [row["step"] for row in rows] == list(range(1, 13))
        assert rows[-1]["loss"] < 0.95 * rows[0]["loss"]
        assert rows[0]["examples"] == 2
        assert {"choice", "opening", "end"} <= rows[0].keys()

    def test_words_are_learnt_as_the_base_model_says_them_without_ads(
        self, base: str, next_pack: NextPack, tmp_path: Path
    ) -> None:
        run, pack, options = tmp_path / "run", next_pack(0), replace(OPTIONS, steps=8)
        pupil = AdapterTrainer(base, OPTIONS.rank, 1)
        train(pupil, next_pack, SHUNNED, options, run)
        train(AdapterTrainer(base, 4, 1), next_pack, SHUNNED, replace(options, steps=9), run)
        targets = [target for run in pack.tree.runs for target in run.targets]

        def drift(teacher: Any) -> float:
            with torch.no_grad():
                said = target_distributions(pupil.model, pack.tree)
                wanted = target_distributions(teacher, pack.plain)
            drifts = [
                float((wanted[t.teacher].exp() * (wanted[t.teacher] - said[row])).sum())
                for row, t in enumerate(targets)
                if t.teacher is not None and t.kind is TokenKind.TEXT
            ]
            return float(np.mean(drifts))

        untrained = AdapterTrainer(base, OPTIONS.rank, 1).model
        assert metrics(run)[-1]["text"] == pytest.approx(drift(untrained), rel=0.05)
        assert abs(drift(pupil.model) / drift(untrained) - 1) > 0.2

    def test_a_killed_run_ends_where_one_in_one_go_ends(
        self, base: str, next_pack: NextPack, tmp_path: Path
    ) -> None:
        class KilledError(Exception):
            pass

        def kill(step: int) -> None:
            if step == 6:
                raise KilledError

        whole, parts = tmp_path / "whole", tmp_path / "parts"
        train(AdapterTrainer(base, OPTIONS.rank, 1), next_pack, SHUNNED, OPTIONS, whole)
        with pytest.raises(KilledError):
            train(AdapterTrainer(base, OPTIONS.rank, 1), next_pack, SHUNNED, OPTIONS, parts, kill)
        train(AdapterTrainer(base, OPTIONS.rank, 2), next_pack, SHUNNED, OPTIONS, parts)

        assert [row["step"] for row in metrics(parts)][-8:] == list(range(5, 13))
        assert metrics(parts)[-1]["loss"] == pytest.approx(metrics(whole)[-1]["loss"], rel=0.02)

    def test_the_adapter_can_be_loaded_by_peft(
        self, base: str, next_pack: NextPack, tmp_path: Path
    ) -> None:
        options = replace(OPTIONS, steps=2)
        train(AdapterTrainer(base, options.rank, 1), next_pack, SHUNNED, options, tmp_path / "run")
        trainer = AdapterTrainer(base, options.rank, 1, tmp_path / "run" / "adapter")

        changed = [w for name, w in trainer.model.named_parameters() if "lora_B" in name]
        assert any(weight.abs().sum() > 0 for weight in changed)


class TestLearningRate:
    def test_rises_stays_and_falls(self) -> None:
        options = WarmStartOptions(steps=100, warm_up=10, cool_down=0.5, learning_rate=1.0)
        rates = [learning_rate(options, step) for step in range(100)]

        assert rates[0] == pytest.approx(0.1)
        assert rates[9:51] == [1.0] * 42
        assert rates[75] == pytest.approx(0.5)
        assert 0 < rates[99] <= 0.021


def test_decisions_weigh_more_than_words() -> None:
    assert WEIGHTS[TokenKind.CHOICE] > WEIGHTS[TokenKind.MARKER] > WEIGHTS[TokenKind.TEXT]
    log_probs = torch.tensor([-1.0, -3.0])

    assert float(weighted_loss(log_probs, ["choice", "choice"])) == pytest.approx(2.0)
    assert float(weighted_loss(log_probs, ["text", "choice"])) > 2.8
