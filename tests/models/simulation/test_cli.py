"""The commands as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from models.simulation.saved_world import load_world
from service import cli


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Run":
    monkeypatch.chdir(tmp_path)
    return Run()


class Run:
    def __call__(self, *words: str) -> Result:
        return CliRunner().invoke(cli.app, ["simulate", *words], env={"COLUMNS": "160"})


class TestBuild:
    def test_the_demo_catalogue_is_the_default(self, run: Run, tmp_path: Path) -> None:
        result = run("build", "--users", "20", "--folder", "world")

        assert result.exit_code == 0, result.output
        assert "20 users (4 held out), 100 queries" in result.output
        assert len(load_world(tmp_path / "world").ads) == 100

    def test_queries_and_ads_from_outside(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "q.jsonl").write_text('{"query": "Where to?", "topic": "Trips"}\nbad\n')
        (tmp_path / "a.jsonl").write_text('{"title": "Far Away", "topic": "Trips"}\n')

        result = run("build", "--queries", "q.jsonl", "--ads", "a.jsonl", "--folder", "world")

        assert result.exit_code == 0, result.output
        assert "q.jsonl, line 2: it is not JSON" in result.output
        world = load_world(tmp_path / "world")
        assert [query.category for query in world.queries] == ["Trips"]
        assert [ad.title for ad in world.ads] == ["Far Away"]

    def test_queries_of_a_category_that_no_ad_has_are_searched_for(
        self, run: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "q.jsonl").write_text(
            '{"query": "Where to?", "topic": "trips"}\n'
            '{"query": "What is a moon?", "topic": "Moons"}\n{"query": "Who?"}\n'
        )
        (tmp_path / "a.jsonl").write_text('{"title": "Far Away", "topic": "Trips"}\n')

        result = run("build", "--queries", "q.jsonl", "--ads", "a.jsonl", "--folder", "world")

        assert result.exit_code == 0, result.output
        assert "1 queries of q.jsonl are of a category that no ad has" in result.output
        world = load_world(tmp_path / "world")
        assert [query.category for query in world.queries] == ["Trips", None, None]
        assert set(world.near) == {"x00002-q1", "x00003-q1"}
        assert not world.is_fit_known

    def test_a_second_build_needs_force(self, run: Run) -> None:
        words = ("build", "--users", "5", "--folder", "world")
        assert run(*words).exit_code == 0

        refused = run(*words)

        assert refused.exit_code == 1
        assert "--force replaces it" in refused.output
        assert run(*words, "--force").exit_code == 0

    def test_a_missing_catalogue_is_told_in_a_sentence(self, run: Run) -> None:
        result = run("build", "--ads", "nowhere.jsonl")

        assert result.exit_code == 1
        assert "nowhere.jsonl" in result.output
        assert "Traceback" not in result.output

    def test_queries_of_a_file_and_of_a_model_exclude_each_other(self, run: Run) -> None:
        result = run("build", "--queries", "q.jsonl", "--llm-url", "http://127.0.0.1:9/v1")

        assert result.exit_code == 2

    def test_an_endpoint_that_is_away_is_told_in_a_sentence(self, run: Run) -> None:
        result = run("build", "--users", "2", "--llm-url", "http://127.0.0.1:9/v1")

        assert result.exit_code == 1
        assert "Traceback" not in result.output


class TestInspect:
    def test_users_and_questions_are_shown(self, run: Run) -> None:
        run("build", "--users", "20", "--folder", "world")

        result = run("inspect", "world", "--samples", "2")

        assert result.exit_code == 0, result.output
        assert result.output.count("question") >= 2

    def test_without_a_world_it_says_how_to_get_one(self, run: Run) -> None:
        result = run("inspect", "nowhere")

        assert result.exit_code == 1
        assert "simulate build" in result.output


class TestAgree:
    def test_two_files_are_compared(self, run: Run, tmp_path: Path) -> None:
        for name in ("one", "two"):
            rows = (
                {"auction_id": f"a{n}", "ad_id": "Ad-1", "probability": n / 40} for n in range(40)
            )
            (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))

        result = run("agree", "one", "two")

        assert result.exit_code == 0, result.output
        assert "Spearman 1.00" in result.output
        assert "40 ads in 40 auctions" in result.output


def test_the_command_line_starts_without_what_only_simulation_needs() -> None:
    script = (
        "import sys, service.cli\n"
        "print({'torch', 'numpy', 'scipy', 'sentence_transformers', 'vllm'} & set(sys.modules))"
    )

    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )

    assert found.stdout.strip() == "set()"
