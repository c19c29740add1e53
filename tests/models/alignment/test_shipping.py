"""What ships is small, whole, and what provisioning expects."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from models.alignment import shipping
from models.alignment.adapter import AdapterTrainer
from models.alignment.shipping import Aligned, servable_policy, ship
from models.contract.prompt import CONTRACT_VERSION, Layout
from models.lora import ADAPTER_FILE, CONFIG_FILE, Adapter

ALIGNED = Aligned("some-base", Layout.INLINE, "a test")


@pytest.fixture
def base(tiny_model: Any, tokenizer: Any, tmp_path: Path) -> Path:
    tiny_model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    trainer = AdapterTrainer(str(base), rank=4, seed=1)
    trainer.finish(tmp_path / "run")
    return tmp_path / "run" / "adapter"


def test_ships_bfloat16_with_a_manifest_that_fits(adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    ship(adapter, tmp_path / "shipped", ALIGNED)
    manifest = json.loads((tmp_path / "shipped" / "manifest.json").read_text())
    config = json.loads((tmp_path / "shipped" / CONFIG_FILE).read_text())
    weights = load_file(tmp_path / "shipped" / ADAPTER_FILE)

    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert manifest["sha256"] == Adapter(tmp_path / "shipped").sha256()
    assert (manifest["base"], manifest["layout"]) == ("some-base", "inline")
    assert manifest["contract"] == CONTRACT_VERSION
    assert (config["r"], config["lora_alpha"]) == (4, 8)


def test_ships_weights_between_where_training_began_and_where_it_ended(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    moved = {name: weight + 1.0 for name, weight in load_file(adapter / ADAPTER_FILE).items()}
    further = tmp_path / "further"
    shutil.copytree(adapter, further)
    save_file(moved, further / ADAPTER_FILE)
    ship(further, tmp_path / "shipped", ALIGNED, start=adapter, share=0.25)
    shipped = load_file(tmp_path / "shipped" / ADAPTER_FILE)
    for name, weight in load_file(adapter / ADAPTER_FILE).items():
        torch.testing.assert_close(
            shipped[name].float(), weight + 0.25, atol=0.01, rtol=0, check_dtype=False
        )


def test_refuses_a_start_of_another_rank(base: Path, adapter: Path, tmp_path: Path) -> None:
    AdapterTrainer(str(base), rank=2, seed=1).finish(tmp_path / "other")
    with pytest.raises(ValueError, match="same layers and rank"):
        ship(adapter, tmp_path / "shipped", ALIGNED, start=tmp_path / "other/adapter", share=0.5)
    assert not (tmp_path / "shipped").exists()


def test_says_nothing_of_the_machine_that_made_it(adapter: Path, tmp_path: Path) -> None:
    ship(adapter, tmp_path / "shipped", ALIGNED)

    for path in (tmp_path / "shipped").glob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_refuses_what_is_too_big_to_ship(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="at most 100 ship"):
        ship(adapter, tmp_path / "shipped", ALIGNED)
    assert not list(tmp_path.glob("shipped*"))


def test_what_shipped_before_stays_until_the_next_is_whole(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(adapter, tmp_path / "shipped", ALIGNED)
    before = {path.name: path.read_bytes() for path in (tmp_path / "shipped").iterdir()}
    monkeypatch.setattr(shipping, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="at most 100 ship"):
        ship(adapter, tmp_path / "shipped", ALIGNED)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "shipped").iterdir()}


def test_a_servable_policy_is_made_once_with_its_tokenizer(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    policy = servable_policy(base, adapter, tmp_path / "policy")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in policy.iterdir()
    }
    made = (policy / "model.safetensors").stat().st_mtime_ns
    assert servable_policy(base, adapter, tmp_path / "policy") == policy
    assert (policy / "model.safetensors").stat().st_mtime_ns == made
