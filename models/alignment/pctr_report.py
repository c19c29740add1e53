"""What is kept of a click model's fit: its figures, and a picture of its calibration."""

import json
from dataclasses import asdict
from pathlib import Path

from models.alignment.pctr import PctrFit


def report(quality: PctrFit, directory: Path) -> None:
    """Write pctr.json and calibration.png to `directory`."""
    from matplotlib.figure import Figure

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pctr.json").write_text(json.dumps(asdict(quality), indent=2) + "\n")
    figure = Figure(figsize=(4.5, 4.5))
    axes = figure.subplots()
    predicted, clicked, _ = zip(*quality.calibration, strict=True)
    most = max(*predicted, *clicked) * 1.05
    axes.plot([0, most], [0, most], color="0.7", linewidth=1)
    axes.plot(predicted, clicked, marker="o")
    axes.set_xlabel("predicted click rate")
    axes.set_ylabel("share clicked, users held out")
    axes.set_title(f"AUC {quality.auc:.3f}, log-loss {quality.log_loss:.3f}")
    figure.savefig(directory / "calibration.png", dpi=120, bbox_inches="tight")
