"""The content of a report, computed from the evidence."""

import pandas as pd

from pcam_model.core.estimate import METRIC_TITLES
from pcam_model.evaluation import metrics
from pcam_model.evaluation.bootstrap import CURVE_GRID
from pcam_model.evaluation.calibration import reliability_curve
from pcam_model.evaluation.compare import auc_difference
from pcam_model.evaluation.conformal import measure_abstention
from pcam_model.evaluation.cross_fit import ScoredSplit, calibrate_splits
from pcam_model.evaluation.domains import domain_metrics
from pcam_model.evaluation.evidence import Evidence
from pcam_model.evaluation.intervals import IntervalEstimates, estimate_intervals
from pcam_model.evaluation.report_schema import (
    Band,
    Calibration,
    ConfusionMatrix,
    Curves,
    Difference,
    EpochMetrics,
    IntervalMethod,
    LrFinderSummary,
    OperatingPoint,
    ReportContent,
    SlideMetrics,
    SplitReport,
)


def build_content(evidence: Evidence) -> tuple[ReportContent, dict[str, ScoredSplit]]:
    """The content of report.json, and the calibrated splits that it was computed from.

    Raises:
        SplitError: a split holds one class only.
        ModelError: an output is not finite.
    """
    calibration, scored = calibrate_splits(evidence)
    splits = {name: _split_report(split, calibration, evidence) for name, split in scored.items()}
    content = ReportContent(
        run=evidence.run,
        published=evidence.calibration is not None,
        headline_split="test" if "test" in splits else next(iter(splits)),
        operating_point=evidence.score.operating_point,
        calibration=calibration,
        split=evidence.split,
        splits=splits,
        tta_gain=_tta_gain(evidence, scored),
        heat_in_centre=evidence.heat_in_centre,
        unlabelled=len(evidence.unlabelled.table) if evidence.unlabelled else 0,
        pack=evidence.pack,
        lr_finder={
            curve.stage: LrFinderSummary(
                suggestion=curve.suggestion, method=curve.method, informative=curve.informative, reason=curve.reason
            )
            for curve in evidence.lr_curves.values()
        },
        epochs=[
            EpochMetrics.model_validate({name: row[name] for name in EpochMetrics.model_fields})
            for row in evidence.history
            if row["kind"] == "epoch"
        ],
        cost=dict(evidence.cost),
        config=dict(evidence.config),
        versions=dict(evidence.versions),
        initial_weights=evidence.initial_weights,
    )
    return content, scored


def _split_report(split: ScoredSplit, calibration: Calibration, evidence: Evidence) -> SplitReport:
    scored, estimates = split.scored, estimate_intervals(split.scored, evidence.seed)
    configured = evidence.score.operating_point
    point = configured if configured in scored.predicted else next(iter(scored.predicted))
    operating_points = {
        name: OperatingPoint(
            threshold=calibration.thresholds.get(name, 0.5),
            confusion=ConfusionMatrix(**metrics.confusion_counts(scored.labels, predicted)._asdict()),
            figures=estimates.by_point[name],
        )
        for name, predicted in scored.predicted.items()
    }
    figures = {**estimates.by_point[point], **estimates.threshold_free}
    return SplitReport(
        patches=len(scored.labels),
        tumour=int(scored.labels.sum()),
        intervals=IntervalMethod(unit=scored.units.kind, units=scored.units.count, resamples=estimates.resamples),
        method=split.method,
        operating_point=point,
        threshold=operating_points[point].threshold,
        figures={name: figures[name] for name in METRIC_TITLES if name in figures},
        uncalibrated={name: estimates.threshold_free[f"{name}_raw"] for name in metrics.LOWER_IS_BETTER},
        confusion=operating_points[point].confusion,
        operating_points=operating_points,
        reliability=reliability_curve(scored.labels, scored.probability, scored.weights),
        curves=_curves(estimates),
        slides=slide_metrics(split.table, scored.probability, scored.predicted[point]),
        domains=domain_metrics(split, point, evidence.seed),
        abstention=measure_abstention(scored, calibration.conformal, evidence.seed),
    )


def _curves(estimates: IntervalEstimates) -> Curves:
    bands = {
        name: Band(value=value.tolist(), low=low.tolist(), high=high.tolist())
        for name, (value, low, high) in estimates.bands.items()
    }
    return Curves(grid=CURVE_GRID.tolist(), **bands)


def slide_metrics(table: pd.DataFrame, probability: metrics.Array, predicted: metrics.Array) -> list[SlideMetrics]:
    """Metrics of each known slide of a table (N rows) of predictions, the least accurate first."""
    table = table.assign(probability=probability, correct=predicted == table["label"].to_numpy(bool))
    known = table[table["slide"].notna() & (table["slide"] != "")]
    rows = [
        SlideMetrics(
            slide=str(slide),
            patches=len(patches),
            tumour=int(patches["label"].sum()),
            accuracy=float(patches["correct"].mean()),
            mean_probability=float(patches["probability"].mean()),
            auc=_auc_or_none(patches),
        )
        for slide, patches in known.groupby("slide")
    ]
    return sorted(rows, key=lambda row: (row.accuracy, row.slide))


def _auc_or_none(patches: pd.DataFrame) -> float | None:
    if patches["label"].nunique() < 2:
        return None
    return metrics.auc(patches["label"].to_numpy(int), patches["probability"].to_numpy())


def _tta_gain(evidence: Evidence, scored: dict[str, ScoredSplit]) -> dict[str, Difference]:
    """By split: the mean over 8 views minus one view."""
    return {
        name: auc_difference({"one view": predictions.single_view, "8 views": scored[name].table}, evidence.seed)
        for name, predictions in evidence.predictions.items()
        if predictions.single_view is not None
    }
