"""The model card of a run: what its own files tell, and nothing that they do not."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.alignment.answers import complete, read_answers
from models.alignment.journal import read_rows
from models.alignment.run import Run
from models.contract.prompt import CONTRACT_VERSION
from models.provision import servable_directory

_REPORT = "report.md"
_KINDS = ("opening", "boundary", "choice", "text")
_NOT_MEASURED = "Not measured: `llm-auction evaluate run` does that, `--evaluation` puts it here."


def write_card(run: Run, epochs: int, evaluation: Path | None = None) -> str:
    """Return the card, as Markdown, of the model after `epochs` epochs.

    evaluation: the directory of an evaluation of that model, with its report. Raises
    FileNotFoundError where there is none, ValueError where another model was measured.
    """
    return "\n".join(
        (
            _head(run, epochs),
            _data(run),
            _recipe(run, epochs),
            _figures(run, epochs, evaluation),
            _LIMITS,
        )
    )


def _head(run: Run, epochs: int) -> str:
    preset = run.preset
    after = f"epoch {epochs} of preferences" if epochs else "the warm start"
    rank = preset.warm_start.rank if preset.trl is None else preset.trl.lora_rank
    trained = "all weights" if rank is None else f"an adapter of rank {rank} (LoRA)"
    return _lines(
        f"# {preset.base}, aligned by the preset `{preset.name}`",
        "",
        "Runs the auction in its answers: it weaves fitting ads into them as `@Title@[Ad-ID]`, and",
        "none where none fits.",
        "",
        *_table(
            ("", ""),
            [
                ("base", preset.base),
                ("trained", f"{trained}, after {after}"),
                ("prompt", f"contract {CONTRACT_VERSION}, layout `{_layout(run)}`"),
                ("licence", "that of the base"),
            ],
        ),
    )


def _data(run: Run) -> str:
    answers = [complete(answer) for answer in read_answers(run.answers).values()]
    world = run.preset.world
    described = json.loads((run.directory / "run.json").read_text())
    return _lines(
        "## What it was trained on",
        "",
        *_begun_with(described),
        f"* {sum(map(bool, answers)):,} answers of the base model without ads, to questions of"
        " simulated training users, to further ones about what the catalogue sells or about nothing"
        " that is sold, and to those of invented categories.",
        f"* A simulated world of {world.users:,} users (seed {world.seed}), of whom"
        f" {world.test_share:.0%} are held out with all that they ask.",
        f"* The catalogue with sha256 `{described['catalogue_sha256'][:16]}…`, in part under"
        " invented names, and ads that no catalogue has.",
    )


def _begun_with(described: Mapping[str, Any]) -> Iterator[str]:
    if described.get("adapter_sha256"):
        name, digest = described["preset"]["adapter"], described["adapter_sha256"]
        yield f"* It goes on from the adapter of {name} with sha256 `{digest[:16]}…`."


def _recipe(run: Run, epochs: int) -> str:
    trained = [("warm start", run.warm_start)]
    trained += [(f"epoch {n}", run.epoch(n) / "dpo") for n in range(1, epochs + 1)]
    learnt = [
        (name, str(rows[-1]["step"]), _change(rows, "loss"), *_by_kind(rows))
        for name, directory in trained
        if (rows := read_rows(directory / "metrics.jsonl"))
    ]
    return _lines(
        "## Recipe",
        "",
        f"`llm-auction align all --preset {run.preset.name}`; losses are means of the first and of"
        " the last tenth of the steps, in nats. `text` is how far the model's words drift from the"
        " base's, which answers without ads (Kullback-Leibler divergence a token).",
        "",
        *_table(("training", "steps", "loss", *_KINDS), learnt),
        "",
        *_table(("stage", "minutes", "CPU minutes"), list(_times(run))),
    )


def _times(run: Run) -> Iterator[tuple[str, str, str]]:
    total = {"seconds": 0.0, "cpu_seconds": 0.0}
    by_stage: dict[str, dict[str, float]] = {}
    for row in read_rows(run.times):
        stage = by_stage.setdefault(row["stage"], dict.fromkeys(total, 0.0))
        for name in total:
            stage[name] += row[name]
            total[name] += row[name]
    for name, taken in {**by_stage, "all": total}.items():
        yield name, f"{taken['seconds'] / 60:.1f}", f"{taken['cpu_seconds'] / 60:.1f}"


def _figures(run: Run, epochs: int, evaluation: Path | None) -> str:
    if evaluation is None:
        return _lines("## Figures", "", _NOT_MEASURED)
    report = (evaluation / _REPORT).read_text()
    manifest = json.loads((evaluation / "manifest.json").read_text())
    config = manifest["config"]
    measured = manifest["aligned"] or manifest["model"]
    if epochs == run.preset.epochs and (run.model / "config.json").is_file():
        own = servable_directory(run.model)
        if measured["revision"] != own.revision:
            raise ValueError(
                f"{evaluation} measured {measured['name']} ({measured['revision']}), and this run's"
                f" model is {run.model} ({own.revision}): measure that with"
                f" `llm-auction evaluate run --aligned {run.model} --out ...`"
            )
    told = (
        f"`{measured['name']}` ({measured['revision']}), {config['sizes']['auctions']} auctions of"
        f" {config['candidates']} candidates, seed {config['seed']}, at most"
        f" {config['sampling']['max_tokens']} tokens an answer,"
        f" {'with' if config['is_constrained'] else 'without'} the grammar, candidates listed by"
        f" {'bid × pctr' if config['has_pctr'] else 'bid'}; means, 95 % intervals over auctions."
    )
    return _lines(
        "## Figures", "", f"Held-out users, fresh bids, simulated clicks: {told}", "", report
    )


_LIMITS = """\
## What it cannot do

* It knows no more than its base, and is as often wrong.
* Users, questions and clicks are simulated, in training and in the figures. People may differ.
* Other layouts of the prompt, other languages and lists far longer than those it was trained on
  were not learnt.
"""


def _by_kind(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    return (_change(rows, kind) for kind in _KINDS)


def _change(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [row[name] for row in rows if name in row]
    if not values:
        return ""
    part = max(1, len(values) // 10)
    first, last = values[:part], values[-part:]
    return f"{sum(first) / len(first):.2f} → {sum(last) / len(last):.2f}"


def _layout(run: Run) -> str:
    return run.preset.warm_start.examples.layout


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *map(list, rows))
    ]


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"
