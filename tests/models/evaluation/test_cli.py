"""`llm-auction evaluate`, as far as it goes without a model."""

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from market import BagOfWords, Planted, an_auction
from rich.console import Console
from small_run import a_run
from talking import TalkingEngine
from typer.testing import CliRunner, Result
from typist import Typist

from models.contract.prompt import Layout
from models.engine.interface import Sampling
from models.evaluation import cli
from models.evaluation.assembly import Place
from models.evaluation.config import QUICK, Sizes, Study
from models.evaluation.manifest import held
from models.evaluation.mechanisms.catalogue import MECHANISMS
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.plan import Task
from models.evaluation.policy import Policy
from models.evaluation.report.page import HTML, MARKDOWN
from models.evaluation.run import Bench
from models.simulation.asking import UserLlm
from models.simulation.completions import Completions, CompletionStore
from models.simulation.judge import Judge
from models.simulation.nouns import Ad
from models.simulation.objective import Objective
from models.simulation.saved_world import save_world
from models.simulation.world import outside_world

DEMO_ADS = Path(__file__).parents[3] / "service/store/demo_ads.jsonl"


def evaluate(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


class TestRun:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--mechanism", "vickrey"), "vickrey is none of pretrained"),
            (("--mechanism", "aligned"), "--aligned"),
            (("--mechanism", "aligned-no-ads"), "aligned-no-ads needs its weights: --aligned"),
            (("--study", "trust"), "trust is none of efficiency"),
            (("--layout", "round"), "inline, split"),
        ],
    )
    def test_wrong_options_are_refused_before_anything_is_started(
        self, arguments: tuple[str, ...], said: str
    ) -> None:
        result = evaluate("run", *arguments)
        assert result.exit_code == 2
        assert said in " ".join(result.output.replace("│", " ").split())

    def test_the_help_names_every_mechanism_and_study_there_is(self) -> None:
        assert list(MECHANISMS) == list(cli.NAMES)
        assert list(Study) == list(cli.STUDIES)

    def test_the_command_line_loads_nothing_heavy(self) -> None:
        script = (
            "import service.cli, sys; "
            "print({'numpy', 'torch', 'vllm', 'matplotlib', 'scipy'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.strip() == "set()"

    @pytest.mark.parametrize(
        ("lines", "said"),
        [
            (None, "No such file"),
            (['{"title": "b"}', '{"title": "[Ad-1] c", "id": "Ad-2"}'], "could be misread"),
        ],
    )
    def test_a_catalogue_that_will_not_do_is_told_in_a_sentence(
        self,
        lines: list[str] | None,
        said: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(cli, "prepare_process", lambda: None)
        catalogue = tmp_path / "ads.jsonl"
        if lines:
            catalogue.write_text("\n".join(lines))

        result = evaluate("run", "--catalogue", str(catalogue), "--out", str(tmp_path))

        assert isinstance(result.exception, SystemExit)
        assert result.exit_code == 1
        assert said in result.output

    def test_bad_rows_of_a_catalogue_are_shown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cli, "prepare_process", lambda: None)
        monkeypatch.setattr(cli, "_run", lambda *_: None)
        catalogue = tmp_path / "ads.jsonl"
        catalogue.write_text(DEMO_ADS.read_text() + "no ad\n")

        result = evaluate("run", "--catalogue", str(catalogue), "--out", str(tmp_path))

        assert "ads.jsonl, line 101: it is not JSON" in result.output
        assert "1 rows of ads.jsonl were left out" in result.output

    def test_users_of_another_world_may_have_been_trained_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cli, "prepare_process", lambda: None)
        monkeypatch.setattr(cli, "_run", lambda *_: None)
        world = outside_world([Ad("Ad-1", "Tent", "tents", "")], [], near={})
        save_world(world, tmp_path / "world", {})

        result = evaluate("run", "--world", str(tmp_path / "world"), "--out", str(tmp_path))

        assert result.exit_code == 0
        assert "the aligned model which ships was trained on" in result.output

    def test_quick_sizes_give_way_to_those_that_are_asked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Sizes] = []
        monkeypatch.setattr(cli, "prepare_process", lambda: None)
        monkeypatch.setattr(cli, "_world", lambda *_: None)
        monkeypatch.setattr(cli, "_run", lambda chosen, *_: asked.append(chosen.config.sizes))

        evaluate("run", "--quick", "--sweep-repeats", "3", "--curve-repeats", "20")

        assert asked == [replace(QUICK, sweep_repeats=3, curve_repeats=20)]

    @pytest.mark.parametrize(("words", "is_kept"), [(("--no-cache",), False), ((), True)])
    def test_what_models_said_is_kept_unless_told_otherwise(
        self,
        words: tuple[str, ...],
        is_kept: bool,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        places: list[Place] = []
        monkeypatch.setattr(cli, "prepare_process", lambda: None)
        monkeypatch.setattr(cli, "_run", lambda _chosen, _world, place, _out: places.append(place))

        evaluate("run", "--catalogue", str(DEMO_ADS), "--out", str(tmp_path), *words)

        (place,) = places
        assert (place.completions is not None) == (place.verdicts is not None) == is_kept

    def test_a_directory_that_another_process_writes_to_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cli, "prepare_process", lambda: None)
        with held(tmp_path):
            result = evaluate("run", "--catalogue", str(DEMO_ADS), "--out", str(tmp_path))
        assert result.exit_code == 1
        assert "Another process takes answers" in result.output
        assert not (tmp_path / "manifest.json").exists()

    async def test_verdicts_that_could_not_be_read_are_counted_at_the_end(
        self, tmp_path: Path
    ) -> None:
        @asynccontextmanager
        async def assembled() -> AsyncGenerator[Bench]:
            judge = Judge(UserLlm(TalkingEngine(["I like it."])))
            policy = Policy(
                Completions(Typist(lambda _: "Plain."), CompletionStore(None)),
                Layout.INLINE,
                Sampling(),
                max_ads=3,
            )
            all_ads = {"all": Planted("all", lambda *_: 1.0)}
            sampler = Sampler(policy, judge, Objective())
            yield Bench(all_ads, policy, sampler, judge, Objective(), BagOfWords())

        console = Console(file=StringIO())
        auctions = [an_auction(number) for number in range(2)]
        tasks = [Task(Study.ORDER, "all", auction, auction.auction_id) for auction in auctions]

        await cli._take(assembled(), tasks, tmp_path, console)

        assert isinstance(console.file, StringIO)
        assert "2 verdicts of the judge could not be read" in console.file.getvalue()


class TestReport:
    async def test_writes_both_files_and_prints_the_tables(self, tmp_path: Path) -> None:
        await a_run(tmp_path)
        result = evaluate("report", "--run", str(tmp_path))
        assert result.exit_code == 0
        assert (tmp_path / HTML).exists()
        assert (tmp_path / MARKDOWN).read_text() in result.output

    def test_says_what_is_missing(self, tmp_path: Path) -> None:
        result = evaluate("report", "--run", str(tmp_path))
        assert result.exit_code == 1
        assert "holds no outcomes" in result.output
