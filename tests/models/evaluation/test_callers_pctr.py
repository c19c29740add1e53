"""A caller's click model ranks what it has never seen, and is no oracle."""

import numpy as np
import pytest

from models.evaluation.callers_pctr import fit_callers_pctr
from models.simulation.auctions import draw_auctions
from models.simulation.click_model import ClickModel
from models.simulation.embeddings import MiniLmEncoder
from models.simulation.nouns import Split
from models.simulation.outside import read_ads
from models.simulation.world import WorldOptions, build_world


def test_tells_held_out_users_clicks_apart_but_not_all_of_them(
    pytestconfig: pytest.Config,
) -> None:
    encoder = MiniLmEncoder()
    catalogue = pytestconfig.rootpath / "service/store/demo_ads.jsonl"
    world = build_world(read_ads(catalogue).good, WorldOptions(users=300))
    users = ClickModel(encoder)
    pctr = fit_callers_pctr(world, users, encoder, count=300)
    auctions = draw_auctions(world, Split.TEST, 100, seed=3)
    truth = np.concatenate(users.native_probabilities(auctions))
    told = np.concatenate([pctr(one) for one in auctions])

    assert ((told > 0) & (told < 1)).all()
    assert 0.6 < np.corrcoef(truth, told)[0, 1] < 0.99
    assert told.mean() == pytest.approx(truth.mean(), rel=0.3)
