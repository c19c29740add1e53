"""The report holds the figures, needs nothing else, and is the same for the same run."""

import re
from pathlib import Path

import pytest
from market import BagOfWords, Planted, Readers, an_auction
from typist import Typist

from models.contract.prompt import Layout
from models.engine.interface import Sampling
from models.evaluation.completions import Completions, CompletionStore
from models.evaluation.config import RunConfig, Sizes
from models.evaluation.manifest import claim
from models.evaluation.mechanisms.no_ads import NoAds
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.plan import auctions_needed, plan
from models.evaluation.policy import Policy
from models.evaluation.report.page import NothingToReport, write_report
from models.evaluation.run import Bench, run
from models.simulation.objective import Objective

SIZES = Sizes(
    auctions=6, sweep_queries=3, sweep_repeats=1, curve_repeats=2, curve_step=4, order_auctions=2
)


async def a_run(directory: Path, concurrency: int = 4) -> None:
    config = RunConfig(("rising", "blind", "no-ads"), sizes=SIZES, draws=4)
    completions = Completions(Typist(lambda _: "A plain answer."), CompletionStore(None))
    policy = Policy(completions, Layout.INLINE, Sampling(), 3)
    mechanisms = {
        "rising": Planted("rising", lambda bid, _: bid / 110),
        "blind": Planted("blind", lambda *_: 0.4),
        "no-ads": NoAds(policy),
    }
    sampler = Sampler(policy, Readers(), Objective(), config.draws)
    bench = Bench(mechanisms, policy, sampler, Readers(), Objective(), BagOfWords())
    model = {"name": "<typist>", "revision": "1"}
    claim(directory, {"config": config.as_json(), "model": model}, begun_at="2026-01-01")
    auctions = [an_auction(number) for number in range(auctions_needed(SIZES))]
    await run(plan(config, auctions), bench, directory, lambda done: None, concurrency)


class TestReport:
    async def test_the_same_run_gives_the_same_bytes(self, tmp_path: Path) -> None:
        await a_run(tmp_path / "a", concurrency=1)
        await a_run(tmp_path / "b", concurrency=9)
        first = [file.read_bytes() for file in write_report(tmp_path / "a")]
        assert [file.read_bytes() for file in write_report(tmp_path / "b")] == first

    async def test_the_page_needs_nothing_else_and_shows_every_mechanism(
        self, tmp_path: Path
    ) -> None:
        await a_run(tmp_path)
        html, markdown = (file.read_text() for file in write_report(tmp_path))
        assert not re.search(r'(src|href)="(?!#)', html)
        assert "<script" not in html
        assert html.count("<svg") == 7
        assert "&lt;typist&gt;" in html
        for name in ("rising", "blind", "no-ads"):
            assert f"<td>{name}</td>" in html
            assert f"| {name} |" in markdown
        assert "individually rational" in markdown

    async def test_tables_have_as_many_cells_as_columns(self, tmp_path: Path) -> None:
        await a_run(tmp_path)
        _, markdown = write_report(tmp_path)
        for block in re.findall(r"(?:^\|.*\n)+", markdown.read_text(), re.M):
            assert len({line.count("|") for line in block.splitlines()}) == 1

    def test_an_empty_directory_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(NothingToReport, match="evaluate run"):
            write_report(tmp_path)
