"""The policy phase with TRL, for models that train on GPUs: DPO, IPO, and online GRPO.

Full-parameter or LoRA, several GPUs by Accelerate's own configuration (`accelerate launch
--config_file … -m service.cli align dpo …`, after `align sample …` in one process). What is learnt
is what `dpo` learns on a CPU; the prompts are the contract's, as text that the model's tokenizer
turns back into the served tokens.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.alignment.dpo import DpoOptions
from models.alignment.examples import auction_prompt
from models.alignment.launch import processes
from models.alignment.preferences import Preference
from models.contract.markers import read
from models.contract.prompt import Layout
from models.contract.reading import Reading
from models.engine.tokens import PromptTokenizer
from models.simulation.nouns import Auction

Reward = Callable[[Sequence[tuple[Auction, Reading]]], list[float]]
"""R of each answer."""


@dataclass(frozen=True, slots=True)
class TrlOptions:
    """What TRL's trainers are told beyond DpoOptions. lora_rank: None trains all parameters.

    is_online: GRPO, on answers that are drawn in training, instead of preferences; what follows it
    is of these answers.
    """

    batch: int = 64
    per_device_batch: int = 4
    lora_rank: int | None = None
    bf16: bool = True
    max_steps: int = -1
    is_online: bool = False
    answers_per_auction: int = 8
    max_answer_tokens: int = 2048
    max_ads: int = 3


def train_dpo(
    model: Any,
    tokenizer: Any,
    preferences: Sequence[Preference],
    dpo: DpoOptions,
    options: TrlOptions,
    run_dir: Path,
) -> None:
    """Train on every pair of winner and loser; the model as it comes is the reference."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    prompts = PromptTokenizer(tokenizer)
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            loss_type=["sigmoid" if dpo.loss == "dpo" else "ipo"],
            beta=dpo.beta,
            precompute_ref_log_probs=True,
            max_length=None,
            **_shared_arguments(dpo, options, run_dir),
        ),
        train_dataset=Dataset.from_list(preference_rows(preferences, prompts, tokenizer, dpo)),
        processing_class=tokenizer,
        peft_config=_lora(options),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(run_dir))
    _finish(trainer, options, run_dir)


def train_grpo(
    model: Any,
    tokenizer: Any,
    auctions: Sequence[Auction],
    reward: Reward,
    dpo: DpoOptions,
    options: TrlOptions,
    run_dir: Path,
) -> None:
    """Train online: sample answers to each auction, and move towards those of higher reward."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    prompts = PromptTokenizer(tokenizer)
    rows = [
        {"prompt": prompt_text(auction, prompts, tokenizer, dpo.layout), "auction": number}
        for number, auction in enumerate(auctions)
    ]

    def rewards(completions: list[str], auction: list[int], **_: Any) -> list[float]:
        asked = [auctions[number] for number in auction]
        readings = [
            read(text, [ad.marked for ad in one.ads], options.max_ads)
            for one, text in zip(asked, completions, strict=True)
        ]
        return reward(list(zip(asked, readings, strict=True)))

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=GRPOConfig(
            beta=dpo.beta,
            num_generations=options.answers_per_auction,
            max_completion_length=options.max_answer_tokens,
            temperature=0.7,
            top_p=0.8,
            top_k=20,
            **_shared_arguments(dpo, options, run_dir),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=_lora(options),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(run_dir))
    _finish(trainer, options, run_dir)


def prompt_text(auction: Auction, prompts: PromptTokenizer, tokenizer: Any, layout: Layout) -> str:
    """The served prompt, with its control tokens, as text."""
    tokens = prompts.encode(auction_prompt(layout, auction))
    return str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False))


def preference_rows(
    preferences: Sequence[Preference], prompts: PromptTokenizer, tokenizer: Any, dpo: DpoOptions
) -> list[dict[str, str]]:
    """TRL's columns, one row for each winner and loser that the model has ended itself: TRL ends
    every answer, which would teach to stop in mid-sentence."""
    return [
        {
            "prompt": prompt_text(preference.auction, prompts, tokenizer, dpo.layout),
            "chosen": preference.winner.reading.answer + tokenizer.eos_token,
            "rejected": loser.reading.answer + tokenizer.eos_token,
        }
        for preference in preferences
        for loser in preference.losers[-dpo.pairs :]
        if preference.winner.is_whole and loser.is_whole
    ]


def _shared_arguments(dpo: DpoOptions, options: TrlOptions, run_dir: Path) -> dict[str, Any]:
    at_once = options.per_device_batch * processes()
    return {
        "output_dir": str(run_dir),
        "seed": dpo.seed,
        "learning_rate": dpo.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": dpo.warm_up_share,
        "num_train_epochs": dpo.passes,
        "max_steps": options.max_steps,
        "per_device_train_batch_size": options.per_device_batch,
        "gradient_accumulation_steps": max(1, options.batch // at_once),
        "bf16": options.bf16,
        "save_steps": 50,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
    }


def _finish(trainer: Any, options: TrlOptions, run_dir: Path) -> None:
    """Leave what was trained, whole or not at all: an adapter, or a model."""
    partial = run_dir / "trained.partial"
    trainer.save_model(str(partial))
    if trainer.is_world_process_zero():
        os.replace(partial, run_dir / ("adapter" if options.lora_rank else "model"))


def _lora(options: TrlOptions) -> Any:
    if options.lora_rank is None:
        return None
    from peft import LoraConfig

    rank = options.lora_rank
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def last_checkpoint(run_dir: Path) -> str | None:
    """The last checkpoint that was written to its end, which is its trainer's state."""
    whole = [state.parent for state in run_dir.glob("checkpoint-*/trainer_state.json")]
    last = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return None if last is None else str(last)
