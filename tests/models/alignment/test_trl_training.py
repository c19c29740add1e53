"""TRL trains on the served tokens, and in the direction of what is preferred."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from small_market import auction

from models.alignment.dpo import (
    DpoOptions,
    PreferenceLoss,
    answer_lengths,
    answer_log_probs,
    margins,
    preference_loss,
    preference_tree,
)
from models.alignment.examples import auction_prompt
from models.alignment.packing import TREE_ATTENTION
from models.alignment.preferences import Preference, Scored
from models.alignment.trl_training import (
    TrlOptions,
    last_checkpoint,
    preference_rows,
    prompt_text,
    train_dpo,
    train_grpo,
)
from models.contract.markers import read
from models.contract.prompt import Layout
from models.contract.reading import Reading
from models.engine.tokens import PromptTokenizer
from models.simulation.nouns import Auction

DPO = DpoOptions(learning_rate=2e-2, passes=2)
TRL = TrlOptions(
    batch=2, per_device_batch=2, bf16=False, answers_per_auction=2, max_answer_tokens=8
)


def scored(text: str, reward: float) -> Scored:
    return Scored(read(text, (), 0), reward)


PREFERENCES = [
    Preference(auction(name=name), scored("Yes.", 30), (scored("No.", 1),)) for name in ("a", "b")
]


@pytest.mark.parametrize("layout", Layout)
def test_the_prompt_as_text_becomes_the_served_tokens(tokenizer: Any, layout: Layout) -> None:
    prompts = PromptTokenizer(tokenizer)
    text = prompt_text(auction(), prompts, tokenizer, layout)

    assert tokenizer(text)["input_ids"] == prompts.encode(auction_prompt(layout, auction()))


def test_a_row_for_each_loser(tokenizer: Any) -> None:
    one = replace(PREFERENCES[0], losers=(scored("No.", 1), scored("Why?", 0)))
    rows = preference_rows([one], PromptTokenizer(tokenizer), tokenizer, DPO)

    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        ("Yes.<|im_end|>", "No.<|im_end|>"),
        ("Yes.<|im_end|>", "Why?<|im_end|>"),
    ]


def test_no_row_of_an_answer_that_was_cut_off(tokenizer: Any) -> None:
    losers = (scored("No.", 1), replace(scored("Why", 0), is_whole=False))
    one = replace(PREFERENCES[0], losers=losers)
    prompts = PromptTokenizer(tokenizer)

    assert [row["rejected"] for row in preference_rows([one], prompts, tokenizer, DPO)] == [
        "No.<|im_end|>"
    ]
    cut = replace(one, winner=replace(one.winner, is_whole=False))
    assert preference_rows([cut], prompts, tokenizer, DPO) == []


def test_a_run_goes_on_from_the_last_checkpoint_that_is_whole(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step, is_whole in ((50, True), (100, True), (150, False)):
        directory = tmp_path / f"checkpoint-{step}"
        directory.mkdir()
        (directory / "model.safetensors").touch()
        if is_whole:
            (directory / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")


def test_dpo_makes_the_winner_likelier_than_the_loser(
    tiny_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import LlamaForCausalLM

    tiny_model.set_attn_implementation("sdpa")

    def lead(model: Any) -> float:
        prompt = PromptTokenizer(tokenizer).encode(auction_prompt(DPO.layout, auction()))
        totals = []
        for answer in ("Yes.", "No."):
            tokens = tokenizer(answer)["input_ids"]
            with torch.no_grad():
                log_probs = model(torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(tokens) - 1)
            totals.append(float(sum(log_probs[p, t] for p, t in zip(places, tokens, strict=True))))
        return totals[0] - totals[1]

    before = lead(tiny_model)
    train_dpo(tiny_model, tokenizer, PREFERENCES, DPO, TRL, tmp_path / "run")

    assert lead(LlamaForCausalLM.from_pretrained(tmp_path / "run" / "model")) > before + 0.5


@pytest.mark.parametrize("loss", PreferenceLoss)
def test_the_loss_is_that_of_training_on_shared_prefixes(
    tiny_model: Any,
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loss: PreferenceLoss,
) -> None:
    options = replace(DPO, loss=loss, passes=1, beta=0.2)
    one = replace(PREFERENCES[0], losers=(scored("No, by no means.", 1),))
    prompts = PromptTokenizer(tokenizer)
    tree = preference_tree(one, prompts, tokenizer, options)
    tiny_model.set_attn_implementation(TREE_ATTENTION)
    reference = deepcopy(tiny_model)
    with torch.no_grad():
        for weight in tiny_model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        found = [answer_log_probs(model, tree) for model in (tiny_model, reference)]
    scale = torch.tensor(answer_lengths(tree)) if loss is PreferenceLoss.IPO else 1
    ours = preference_loss(margins(found[0] / scale, found[1] / scale), options.beta, loss)

    losses: list[float] = []

    class AgainstReference(trl.DPOTrainer):  # type: ignore[misc]
        def __init__(self, **given: Any) -> None:
            super().__init__(ref_model=reference, **given)

        def log(self, logs: dict[str, float], *rest: Any) -> None:
            losses.append(logs.get("loss", 0.0))

    monkeypatch.setattr(trl, "DPOTrainer", AgainstReference)
    for model in (tiny_model, reference):
        model.set_attn_implementation("sdpa")
    once = replace(TRL, batch=1, per_device_batch=1)
    train_dpo(tiny_model, tokenizer, [one], options, once, tmp_path / "run")

    assert losses[0] == pytest.approx(float(ours), rel=1e-3)


def test_grpo_asks_for_the_reward_of_what_it_samples(
    tiny_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    asked: list[tuple[Auction, Reading]] = []

    def reward(answers: Sequence[tuple[Auction, Reading]]) -> list[float]:
        asked.extend(answers)
        return [float(len(reading.answer)) for _, reading in answers]

    tiny_model.save_pretrained(tmp_path / "base")
    model = str(tmp_path / "base")
    tokenizer.save_pretrained(model)
    options = replace(TRL, max_steps=1)
    train_grpo(model, tokenizer, [auction()], reward, DPO, options, tmp_path / "run")

    assert len(asked) >= options.answers_per_auction
    assert {one.auction_id for one, _ in asked} == {"a1"}
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
