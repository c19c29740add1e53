"""The learned click model: finds what decides clicks, and says how well it has."""

from dataclasses import replace

import numpy as np
import pytest
from small_market import FakeEncoder, auction

from models.alignment.pctr import PctrOptions, Showing, assess, fit
from models.alignment.pctr_report import report
from models.contract.markers import read
from models.simulation.nouns import Exposure
from models.simulation.randomness import uniform

OPTIONS = PctrOptions(passes=30, batch=64)


def showings(count: int, begin: int = 0) -> list[Showing]:
    """Ad-1 is clicked in 8 of 10 answers, Ad-3 in 1 of 10; nothing else matters."""
    found = []
    for number in range(begin, begin + count):
        ad_id, rate = ("Ad-1", 0.8) if number % 2 else ("Ad-3", 0.1)
        one = auction(name=f"a{number}", user=f"u{number % 40}")
        exposure = Exposure(one, read(f"Answer {number}.", (), 0))
        found.append(Showing(exposure, ad_id, uniform("click", number) < rate))
    return found


def test_learns_which_ad_is_clicked_on() -> None:
    model = fit(FakeEncoder(), showings(600), OPTIONS)
    quality = assess(model, showings(200, begin=600))

    assert quality.auc > 0.75
    assert quality.log_loss < quality.base_log_loss - 0.05
    assert sum(size for _, _, size in quality.calibration) == quality.showings == 200


def test_has_an_answer_for_ads_and_users_that_it_has_not_met() -> None:
    model = fit(FakeEncoder(), showings(200), OPTIONS)
    new = replace(showings(1)[0], ad_id="Ad-new")

    assert 0 < model.probabilities([new])[0] < 1
    assert model.probabilities([]).shape == (0,)


def test_same_seed_same_model() -> None:
    first, second = (fit(FakeEncoder(), showings(100), PctrOptions(passes=2)) for _ in range(2))

    np.testing.assert_array_equal(
        first.probabilities(showings(20)), second.probabilities(showings(20))
    )


def test_refuses_what_shows_nothing() -> None:
    with pytest.raises(ValueError, match="No ad was shown"):
        fit(FakeEncoder(), [], OPTIONS)
    model = fit(FakeEncoder(), showings(20), PctrOptions(passes=1))
    with pytest.raises(ValueError, match="with and without a click"):
        assess(model, [replace(showing, clicked=False) for showing in showings(20)])


def test_the_report_holds_figures_and_picture(tmp_path: object) -> None:
    from pathlib import Path

    directory = Path(str(tmp_path)) / "pctr"
    report(assess(fit(FakeEncoder(), showings(200), OPTIONS), showings(100, 200)), directory)

    assert '"auc"' in (directory / "pctr.json").read_text()
    assert (directory / "calibration.png").read_bytes().startswith(b"\x89PNG")
