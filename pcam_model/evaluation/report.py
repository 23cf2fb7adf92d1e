"""Write the files of a report: figures, page, model card and predictions."""

from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from pcam_model.core.conformal import decide_sets
from pcam_model.core.errors import SplitError
from pcam_model.core.files import write_atomic
from pcam_model.core.platt_scaling import PlattScaling
from pcam_model.core.write_guard import write_guard
from pcam_model.evaluation import curves, metrics, page, plots, style, text
from pcam_model.evaluation.cross_fit import ScoredSplit
from pcam_model.evaluation.evidence import Evidence, Example, Report, ScoreConfig
from pcam_model.evaluation.examples_sheet import draw_examples_sheet
from pcam_model.evaluation.metrics import Confusion
from pcam_model.evaluation.predictions import SplitPredictions
from pcam_model.evaluation.report_schema import ReportContent
from pcam_model.evaluation.summary import build_content

__all__ = ["Evidence", "Example", "Report", "ScoreConfig", "SplitPredictions", "write_report"]

# metrics.json is report.json without curves, tables and the run's description.
METRICS_KEYS = {
    "schema_version", "run", "published", "headline_split", "operating_point", "calibration", "split", "tta_gain",
    "splits",
}  # fmt: skip
LONG_KEYS = {"curves", "reliability", "slides"}
PREDICTION_COLUMNS = [
    "id", "split", "slide", "domain", "label", "logit0", "logit1", "logit", "probability", "predicted",
    "decision", "pixels",
]  # fmt: skip


def write_report(folder: Path, evidence: Evidence) -> Report:
    """Compute a report and write its files into the folder.

    `report.html` (self-contained), `report.json` (its content), `metrics.json` (the metrics alone), `MODEL_CARD.md`,
    `predictions.parquet` (id, split, slide, domain, label, logit0, logit1, logit, probability,
    predicted, decision, pixels), the figures
    as PNG, and `submission.csv` where the source has unlabelled test patches.

    Raises:
        SplitError: a split that is scored holds one class only, or there is no split at all.
        ModelError: the network's output is not finite.
        DiskFullError: there is no room for the files.
    """
    if not evidence.predictions:
        raise SplitError("There is no validation and no test split, expected at least one; give split.valid above 0")
    content, splits = build_content(evidence)
    files = _text_files(content, evidence)
    if evidence.unlabelled:
        files["submission.csv"] = submission_csv(evidence.unlabelled.table, content.calibration.scaling)
    files |= {"predictions.parquet": _predictions_parquet(splits), **_png_files(content, evidence)}
    with write_guard(folder):
        for name, file in files.items():
            write_atomic(folder / name, file)
    return Report(
        folder=str(folder),
        figures={name: split.figures for name, split in content.splits.items()},
        files=list(files),
        headline_split=content.headline_split,
        temperature=content.calibration.temperature,
        bias=content.calibration.bias,
        thresholds=content.calibration.thresholds,
        operating_point=content.splits[content.headline_split].operating_point,
        conformal=content.calibration.conformal,
    )


def _text_files(content: ReportContent, evidence: Evidence) -> dict[str, bytes]:
    without_long = {"splits": {"__all__": LONG_KEYS}}
    return {
        "metrics.json": as_json(content, include=METRICS_KEYS, exclude=without_long),
        "report.json": as_json(content),
        "report.html": page.render_page(content, evidence),
        "MODEL_CARD.md": page.render_model_card(content),
    }


def as_json(content: ReportContent, **selection: Any) -> bytes:
    """The content as JSON."""
    return content.model_dump_json(indent=2, **selection).encode()


def submission_csv(unlabelled: pd.DataFrame, scaling: PlattScaling) -> bytes:
    """Kaggle's id,label in the order of the table; the label is the calibrated probability of tumour."""
    probability = scaling.probability(metrics.log_odds(unlabelled[["logit0", "logit1"]].to_numpy()))
    table = pd.DataFrame({"id": unlabelled["id"].to_numpy(), "label": probability})
    return table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()


def _predictions_parquet(splits: Mapping[str, ScoredSplit]) -> bytes:
    """All splits as one table, predicted at the first operating point, the configured one."""
    table = pd.concat([_predictions(name, split) for name, split in splits.items()], ignore_index=True)
    table = table.drop(columns=[name for name in ("domain",) if name in table and table[name].isna().all()])
    content = BytesIO()
    table[[column for column in PREDICTION_COLUMNS if column in table]].to_parquet(content, index=False)
    return content.getvalue()


def _predictions(name: str, split: ScoredSplit) -> pd.DataFrame:
    scored = split.scored
    decisions = {} if scored.sets is None else {"decision": decide_sets(scored.sets)}
    return split.table.assign(
        split=name,
        slide=split.table["slide"].astype("string"),
        label=split.table["label"].astype("int8"),
        logit=scored.log_odds,
        probability=scored.probability,
        predicted=next(iter(scored.predicted.values())).astype("int8"),
        **decisions,
    )


def _png_files(content: ReportContent, evidence: Evidence) -> dict[str, bytes]:
    splits = content.splits
    matrices = {
        f"{text.split_title(name)}, {text.point_title(split.operating_point)}": Confusion(
            **split.confusion.model_dump()
        )
        for name, split in splits.items()
    }
    examples = {"examples.png": draw_examples_sheet(evidence.examples)} if evidence.examples else {}
    return examples | {
        "lr.png": style.draw_png(partial(plots.lr_curves, curves=evidence.lr_curves), 7, 2.9),
        "losses.png": style.draw_png(partial(plots.losses, history=evidence.history), 7, 4.2),
        "confusion.png": style.draw_png(partial(plots.confusions, matrices=matrices), 3.2 * len(matrices), 3.2),
        "roc.png": style.draw_png(partial(curves.roc, splits=splits), 3.5, 3.4),
        "pr.png": style.draw_png(partial(curves.precision_recall, splits=splits), 3.5, 3.4),
        "reliability.png": style.draw_png(partial(curves.reliability, splits=splits), 3.5, 3.8),
    }
