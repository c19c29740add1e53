"""The learned click model (pCTR) of the reward phase.

After LLM-Auction (arXiv 2512.10551, section 4): a frozen text encoder reads query and answer;
learned embeddings stand for the user and the ad; an MLP turns them into the odds of a click. Fitted
by binary cross-entropy on simulated clicks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.simulation.embeddings import Encoder
from models.simulation.nouns import Exposure

UNKNOWN = 0
"""The row of users and ads that were not met in training."""


@dataclass(frozen=True, slots=True)
class PctrOptions:
    """How to fit; the source's numbers. forget_share: of examples whose user and ad are taken for
    unknown, each by itself, so that there is an answer for new ones."""

    user_width: int = 64
    ad_width: int = 32
    hidden: tuple[int, ...] = (128, 64, 32)
    learning_rate: float = 1e-3
    batch: int = 256
    passes: int = 8
    forget_share: float = 0.3
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Showing:
    """One ad in one answer. clicked: None where that is to be predicted."""

    exposure: Exposure
    ad_id: str
    clicked: bool | None = None

    @property
    def user_id(self) -> str:
        return self.exposure.auction.user.user_id


@dataclass(frozen=True, slots=True)
class PctrFit:
    """A fitted model's quality on showings that it has not seen.

    auc: area under the ROC curve. log_loss: mean, in nats; `base_log_loss`: of always predicting
    the mean rate. calibration: (mean predicted, share clicked, showings) by tenth of prediction.
    """

    showings: int
    auc: float
    log_loss: float
    base_log_loss: float
    calibration: tuple[tuple[float, float, int], ...]


class PctrModel(nn.Module):  # type: ignore[misc]
    """Click probabilities of ads in answers. Make it with `fit`."""

    def __init__(self, encoder: Encoder, showings: Sequence[Showing], options: PctrOptions) -> None:
        super().__init__()
        self._encoder = encoder
        self._users = _rows({showing.user_id for showing in showings})
        self._ads = _rows({showing.ad_id for showing in showings})
        self.user = nn.Embedding(len(self._users) + 1, options.user_width)
        self.ad = nn.Embedding(len(self._ads) + 1, options.ad_width)
        text_width = 2 * encoder.encode(["width"]).shape[1]
        widths = [text_width + options.user_width + options.ad_width, *options.hidden]
        layers: list[Any] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, texts: Tensor, users: Tensor, ads: Tensor) -> Tensor:
        """Logits of shape (showings,). texts: (showings, width of query and answer together)."""
        features = torch.cat([texts, self.user(users), self.ad(ads)], dim=1)
        logits: Tensor = self.mlp(features).squeeze(1)
        return logits

    def features(self, showings: Sequence[Showing]) -> tuple[Tensor, Tensor, Tensor]:
        """What `forward` takes."""
        queries = self._encoder.encode([s.exposure.auction.query.text for s in showings])
        answers = self._encoder.encode([s.exposure.reading.answer for s in showings])
        return (
            torch.from_numpy(np.concatenate([queries, answers], axis=1)),
            torch.tensor([self._users.get(s.user_id, UNKNOWN) for s in showings]),
            torch.tensor([self._ads.get(s.ad_id, UNKNOWN) for s in showings]),
        )

    def probabilities(self, showings: Sequence[Showing]) -> NDArray[np.float64]:
        """The click probability of each showing, 0 to 1."""
        if not showings:
            return np.zeros(0)
        with torch.no_grad():
            logits = self(*self.features(showings))
        return np.asarray(torch.sigmoid(logits).double().numpy(), np.float64)


def fit(encoder: Encoder, showings: Sequence[Showing], options: PctrOptions) -> PctrModel:
    """Fit a model to `showings`, all with known clicks. Raises ValueError without any."""
    if not showings:
        raise ValueError("No ad was shown in any answer: there is nothing to fit a pCTR model to")
    torch.manual_seed(options.seed)
    model = PctrModel(encoder, showings, options)
    texts, users, ads = model.features(showings)
    clicks = torch.tensor([float(bool(showing.clicked)) for showing in showings])
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
    for _ in range(options.passes):
        for rows in torch.randperm(len(showings)).split(options.batch):
            logits = model(
                texts[rows],
                _forgotten(users[rows], options.forget_share),
                _forgotten(ads[rows], options.forget_share),
            )
            loss = nn.functional.binary_cross_entropy_with_logits(logits, clicks[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def assess(model: PctrModel, showings: Sequence[Showing]) -> PctrFit:
    """How well `model` predicts the clicks of `showings`, of which some and not all were clicked.

    Raises ValueError otherwise.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    clicks = np.array([bool(showing.clicked) for showing in showings])
    if clicks.all() or not clicks.any():
        raise ValueError("Needs showings with and without a click to be assessed on")
    predicted = model.probabilities(showings)
    tenths = [part for part in np.array_split(np.argsort(predicted), 10) if len(part)]
    return PctrFit(
        showings=len(showings),
        auc=float(roc_auc_score(clicks, predicted)),
        log_loss=float(log_loss(clicks, predicted)),
        base_log_loss=float(log_loss(clicks, np.full(len(clicks), clicks.mean()))),
        calibration=tuple(
            (float(predicted[part].mean()), float(clicks[part].mean()), len(part))
            for part in tenths
        ),
    )


def _rows(names: set[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(sorted(names), start=UNKNOWN + 1)}


def _forgotten(rows: Tensor, share: float) -> Tensor:
    return torch.where(torch.rand(rows.shape) < share, UNKNOWN, rows)
