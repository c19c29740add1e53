"""Variations of the engine's settings."""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from loadtest.engine_settings import Figures, Variation, _result, write_int8

BASE = {"LD_PRELOAD": "/lib/libtcmalloc.so:/lib/libiomp5.so", "OMP_NUM_THREADS": "2"}


class TestVariation:
    def test_leaves_out_one_library(self) -> None:
        environment = Variation(without="tcmalloc").environment(BASE)
        assert environment["LD_PRELOAD"] == "/lib/libiomp5.so"

    def test_sets_and_unsets_variables(self) -> None:
        varied = Variation(env={"OMP_NUM_THREADS": None, "KMP_BLOCKTIME": "200"})
        environment = varied.environment(BASE)
        assert "OMP_NUM_THREADS" not in environment
        assert environment["KMP_BLOCKTIME"] == "200"

    def test_hands_arguments_on_to_the_engine(self) -> None:
        environment = Variation(args={"dtype": "float32"}).environment(BASE)
        assert json.loads(environment["LLM_AUCTION_ENGINE__ARGS"]) == {"dtype": "float32"}


def test_int8_weights_are_close_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    model, target = tmp_path / "model", tmp_path / "int8"
    model.mkdir()
    weight = torch.randn(16, 8, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(1))
    norm = torch.ones(8, dtype=torch.bfloat16)
    save_file({"layers.0.q_proj.weight": weight, "norm.weight": norm}, model / "model.safetensors")
    (model / "config.json").write_text('{"model_type": "llama"}')

    write_int8(model, target)

    tensors = load_file(target / "model.safetensors")
    quantised, scale = tensors["layers.0.q_proj.weight"], tensors["layers.0.q_proj.weight_scale"]
    assert quantised.dtype == torch.int8
    assert ((quantised * scale - weight.float()).abs() <= scale / 2 + 1e-6).all()
    assert torch.equal(tensors["norm.weight"], norm)
    config = json.loads((target / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"


def test_the_page_has_what_is_known_so_far_and_why_a_setting_does_not_run() -> None:
    ran = Figures([20.0], [3000.0], {1: [40.0], 16: [200.0], 32: [250.0]})
    found = {"default": ran, "int8": Figures(problem="no kernel"), "float32": Figures()}
    page = _result(argparse.Namespace(rounds=1), found).markdown()

    assert "| default | 20 |" in page
    assert "does not run: no kernel" in page
    assert "float32" not in page
