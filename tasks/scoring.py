"""Tasks of the evaluation wing: score."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import task

from pcam_model.config import TrainConfig
from pcam_model.evaluation import text as words
from pcam_model.evaluation.examples import explained
from pcam_model.evaluation.forward import as_table, forward
from pcam_model.evaluation.metrics import NAMES
from pcam_model.evaluation.report import Evidence, Report, write_report
from pcam_model.registry.workspace import Workspace
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.context import TrainingContext, load_network, parts
from pcam_model.training.lr_finder import LrCurve
from pcam_model.training.metrics_log import NAME, cost, read_metrics
from pcam_model.training.model_io import versions
from tasks.policy import retry_policy
from tasks.progress import progress, show_picture, show_table, show_text

PICTURES = {
    "roc": "ROC with 95 % bands",
    "pr": "Precision and recall with 95 % bands",
    "reliability": "Reliability after calibration",
    "confusion": "Confusion at the operating point",
    "examples": "Where the network looked",
    "lr": "LR search",
    "losses": "Losses and rates",
}


@task(**retry_policy(hours=24))
def score(
    workspace: Workspace,
    config: TrainConfig,
    context: TrainingContext,
    curves: list[LrCurve | None],
    trained: list[Checkpoint | None],
) -> Report:
    """Figures on the validation part, and on the test part where there is one, with their pictures."""
    last = trained[-1] or trained[0]

    def make(folder: Path) -> Report:
        with progress("scoring") as tell:
            return write_report(folder, _evidence(workspace, config, context, curves, last, tell))

    report = workspace.run_step("report", Report, make, {"model": last.digest if last else "", **context.inputs()})
    _show(report)
    return report


def _evidence(
    workspace: Workspace,
    config: TrainConfig,
    context: TrainingContext,
    curves: list[LrCurve | None],
    last: Checkpoint | None,
    tell: Callable[[int, int], None],
) -> Evidence:
    read, network = parts(context), load_network(context, last)
    sides: dict[str, Any] = {side: read.rows[side] for side in ("valid", "test") if side in read.rows}
    began = time.monotonic()
    seen = {side: forward(network, read.batches[side], config.score.tta, tell) for side in read.rows if side != "train"}
    seconds, count = time.monotonic() - began, sum(len(single) for single, _ in seen.values())
    tables = {side: as_table(read.table, read.rows[side], mean) for side, (_, mean) in seen.items()}
    single = {side: as_table(read.table, rows, seen[side][0]) for side, rows in sides.items()}
    shown = "test" if "test" in sides else "valid"
    history = [
        row for stage in ("frozen", "finetune") for row in read_metrics(workspace.room(f"checkpoints/{stage}") / NAME)
    ]
    evidence = Evidence(
        run=workspace.run,
        config=config.result_keys(),
        pack=context.pack.model_dump(mode="json", exclude={"folder"}),
        split=context.split.model_dump(mode="json", exclude={"path"}),
        predictions={side: tables[side] for side in sides},
        unlabelled=tables.get("unlabelled"),
        single_view=single if config.score.tta else {},
        history=history,
        lr_curves={curve.stage: _drawn(curve) for curve in curves if curve},
        score=config.score,
        versions=versions(),
        cost=cost(history) | {"scoring, seconds": seconds, "scoring, patches per second": count / seconds},
        seed=config.seed,
    )
    examples, share = explained(evidence, network, config.model.image_size, read.whole, sides[shown])
    return dataclasses.replace(evidence, examples=examples, pointing=share)


def _drawn(curve: LrCurve) -> Any:
    return {**curve.model_dump(include={"lrs", "losses", "suggestion", "method"}), "lr": curve.suggestion}


def _show(report: Report) -> None:
    folder = Path(report.folder)
    rows = [
        {"figure": title, **{words.SIDE[side]: words.interval(figures[name].model_dump()) for side, figures in
                             report.figures.items() if name in figures}}
        for name, title in NAMES.items()
    ]  # fmt: skip
    show_table("figures", rows, "Figures of the model, with 95 % intervals")
    show_text("model-card", (folder / "MODEL_CARD.md").read_text("utf-8"), "Model card")
    for name, about in PICTURES.items():
        if f"{name}.png" in report.files:
            show_picture(name, folder / f"{name}.png", about)
    for side, figures in report.figures.items():
        print(f"{side}: " + ", ".join(f"{name} {figure.value:.4f}" for name, figure in figures.items()))
