"""The task that scores the trained network and writes its report."""

import time
from collections.abc import Callable
from pathlib import Path

from pcam_model.config import TrainConfig
from pcam_model.core.estimate import METRIC_TITLES
from pcam_model.core.log import RESULT, log
from pcam_model.core.stage_names import STAGE_NAMES
from pcam_model.evaluation.evidence import (
    SCORING_RATE,
    SCORING_SECONDS,
    Evidence,
    Report,
    summarise_pack,
    summarise_split,
)
from pcam_model.evaluation.examples import add_examples
from pcam_model.evaluation.predictions import predict_split
from pcam_model.evaluation.report import write_report
from pcam_model.evaluation.text import format_estimate, split_title
from pcam_model.registry.workspace import Workspace
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.context import TrainingContext, load_network, load_split_data
from pcam_model.training.lr_curve import LrCurve
from pcam_model.training.metrics_log import METRICS_FILE, read_metrics, training_cost
from pcam_model.training.model_io import versions
from pcam_model.training.network import describe_weights
from tasks.policy import step
from tasks.progress import progress, show_picture, show_table, show_text

PICTURES = {
    "roc": "ROC with 95 % bands",
    "pr": "Precision and recall with 95 % bands",
    "reliability": "Reliability after calibration",
    "confusion": "Confusion at the operating point",
    "examples": "Where the network looked",
    "lr": "LR range test",
    "losses": "Losses and learning rate",
}


@step("evaluation", hours=24)
def score(
    workspace: Workspace,
    config: TrainConfig,
    context: TrainingContext,
    curves: list[LrCurve | None],
    trained: Checkpoint,
) -> Report:
    """Score the validation split, and the test split where there is one; write the report."""

    def make(folder: Path) -> Report:
        with progress("scoring") as on_progress:
            return write_report(folder, _evidence(workspace, config, context, curves, trained, on_progress))

    report = workspace.run_step("report", Report, make, {"model": trained.digest, **context.inputs()})
    _show(report)
    return report


def _evidence(
    workspace: Workspace,
    config: TrainConfig,
    context: TrainingContext,
    curves: list[LrCurve | None],
    trained: Checkpoint,
    on_progress: Callable[[int, int], None],
) -> Evidence:
    """Predictions of all splits but train, and what else the report is made of."""
    data, network = load_split_data(context), load_network(context, trained)
    start = time.monotonic()
    predictions = {
        split: predict_split(network, data.loaders[split], data.table, rows, config.score.tta, on_progress)
        for split, rows in data.rows.items()
        if split != "train"
    }
    seconds, count = time.monotonic() - start, sum(len(split.table) for split in predictions.values())
    logs = [workspace.step_dir(f"checkpoints/{stage}") / METRICS_FILE for stage in STAGE_NAMES]
    history = [row for path in logs for row in read_metrics(path)]
    evidence = Evidence(
        run=workspace.run,
        config=config.result_keys(),
        pack=summarise_pack(context.pack),
        split=summarise_split(context.split),
        predictions={split: predictions[split] for split in ("valid", "test") if split in predictions},
        unlabelled=predictions.get("unlabelled"),
        history=history,
        lr_curves={curve.stage: curve for curve in curves if curve},
        score=config.score,
        versions=versions(),
        cost=training_cost(history) | {SCORING_SECONDS: seconds, SCORING_RATE: count / seconds},
        initial_weights=describe_weights(config.model),
        seed=config.seed,
    )
    return add_examples(evidence, network, config.model.image_size, data.patches)


def _show(report: Report) -> None:
    """Show metrics, model card and pictures on Prefect's page."""
    folder = Path(report.folder)
    rows = [
        {
            "metric": title,
            **{split_title(split): format_estimate(figures.get(name)) for split, figures in report.figures.items()},
        }
        for name, title in METRIC_TITLES.items()
    ]
    show_table("metrics", rows, "Metrics with 95 % intervals")
    show_text("model-card", (folder / "MODEL_CARD.md").read_text("utf-8"), "Model card")
    for name, description in PICTURES.items():
        if f"{name}.png" in report.files:
            show_picture(name, folder / f"{name}.png", description)
    for split, figures in report.figures.items():
        line = ", ".join(f"{name} {figure.value:.4f}" for name, figure in figures.items())
        log.info("%s: %s", split, line, extra=RESULT)
