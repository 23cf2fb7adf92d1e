"""Paired comparison of models: differences with intervals, and DeLong's test."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from pcam_model.core.errors import ConfigError, ModelError
from pcam_model.core.estimate import METRIC_TITLES, Estimate
from pcam_model.core.parsing import read_record
from pcam_model.core.schema import Record
from pcam_model.data.read_table import read_table
from pcam_model.evaluation import metrics
from pcam_model.evaluation.bootstrap import (
    FEW_SLIDES,
    RESAMPLES,
    ResamplingUnits,
    ScoredPatches,
    WeightedMetrics,
    bootstrap_weights,
    concat_arrays,
    jackknife_weights,
    resampling_units,
)
from pcam_model.evaluation.intervals import bca_interval
from pcam_model.evaluation.report_schema import Difference, ReportMetrics

Array = NDArray[Any]
Tables = tuple[pd.DataFrame, pd.DataFrame]
SPLITS = ("test", "valid", "new")  # in the order in which a comparison prefers them
METRIC_NAMES = tuple(METRIC_TITLES)
COLUMNS = ("id", "split", "slide", "label", "logit0", "logit1")
OPTIONAL = ("probability", "predicted", "pixels")
REMEDY = "score the model again"
OWN_POINT = "own"  # each model's own operating point


def auc_difference(tables: Mapping[str, pd.DataFrame], seed: int = 2, resamples: int = RESAMPLES) -> Difference:
    """Compare two tables of predictions (id, slide, label, logit0, logit1), named by their models.

    Columns `probability` and `predicted`, as a report's table has them, are used as they are; without them the
    probability is that of the logits, and the threshold is 0.5.

    Raises:
        ConfigError: not two tables, or of different patches.
        SplitError: one class only.
    """
    (name_first, name_second), pair = _aligned(tables)
    labels = metrics.validate_labels(pair[0]["label"].to_numpy(), "compared")
    units = max((resampling_units(table["slide"]) for table in pair), key=lambda units: units.kind == "slides")
    first, second = (_scored_patches(table, labels, units) for table in pair)
    (auc_first, auc_second), z, p = delong(labels, first.log_odds, second.log_odds)
    figures = _differences(WeightedMetrics(first), WeightedMetrics(second), resamples, seed)
    return Difference(
        first=name_first,
        second=name_second,
        auc_first=auc_first,
        auc_second=auc_second,
        value=auc_second - auc_first,
        low=figures["auc"].low or 0.0,
        high=figures["auc"].high or 0.0,
        unit=units.kind,
        units=units.count,
        z=z,
        p=p,
        figures=figures,
    )


def _scored_patches(table: pd.DataFrame, labels: Array, units: ResamplingUnits) -> ScoredPatches:
    log_odds = metrics.log_odds(table[["logit0", "logit1"]].to_numpy())
    probability = table["probability"].to_numpy() if "probability" in table else metrics.sigmoid(log_odds)
    predicted = table["predicted"].to_numpy(bool) if "predicted" in table else probability >= 0.5
    return ScoredPatches(labels, log_odds, probability, probability, {OWN_POINT: predicted}, units)


def _differences(first: WeightedMetrics, second: WeightedMetrics, resamples: int, seed: int) -> dict[str, Estimate]:
    """Every metric of the second minus that of the first, with both computed on the same resamples."""
    units = first.scored.units

    def differences(weights: Iterable[Array]) -> dict[str, Array]:
        return concat_arrays(_metric_differences(first, second, chunk) for chunk in weights)

    values = differences([np.ones((1, units.count))])
    resampled = differences(bootstrap_weights(units, resamples, seed))
    jackknifed = differences(jackknife_weights(units, seed))
    estimates = {}
    for name, (value,) in values.items():
        if np.isfinite(value):
            low, high = bca_interval(float(value), resampled[name], jackknifed[name], units.count)
            estimates[name] = Estimate(value=float(value), low=low, high=high)
    return estimates


def _metric_differences(first: WeightedMetrics, second: WeightedMetrics, weights: Array) -> dict[str, Array]:
    """Every metric of the second minus that of the first (R,), for weights (R, units)."""
    one, other = (
        {**values.by_point[OWN_POINT], **values.threshold_free}
        for values in (model(weights, curves=False) for model in (first, second))
    )
    return {name: other[name] - one[name] for name in METRIC_NAMES}


def delong(labels: Array, first: Array, second: Array) -> tuple[tuple[float, float], float, float]:
    """DeLong's test of two correlated AUCs: both areas, z of second - first, and the two-sided p-value.

    `labels`: (N,) of 0 and 1; `first`, `second`: scores (N,). Two equal rankings give z = 0 and p = 1.
    """
    areas, covariance = delong_covariance(labels, np.stack([first, second]))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    gap = areas[1] - areas[0]
    z = 0.0 if abs(gap) < 1e-15 else gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)
    return (float(areas[0]), float(areas[1])), float(z), math.erfc(abs(z) / math.sqrt(2))


def delong_covariance(labels: Array, scores: Array) -> tuple[Array, Array]:
    """Areas (K,) and their covariance (K, K) for scores (K, N), by midranks (Sun and Xu, 2014)."""
    tumour = np.asarray(labels) == 1
    m, n = int(tumour.sum()), int((~tumour).sum())
    ranks = rankdata(scores, axis=1)
    above = (ranks[:, tumour] - rankdata(scores[:, tumour], axis=1)) / n
    below = 1 - (ranks[:, ~tumour] - rankdata(scores[:, ~tumour], axis=1)) / m
    return above.mean(axis=1), np.cov(above) / m + np.cov(below) / n


def compare_with_first(tables: Mapping[str, pd.DataFrame], seed: int = 2) -> list[Difference]:
    """The difference of every later model from the first.

    Raises:
        ConfigError: fewer than two models, or different patches.
    """
    names = list(tables)
    if len(names) < 2:
        raise ConfigError(f"There is nothing to compare {' '.join(names)} with, expected two different runs or more")
    return [auc_difference({names[0]: tables[names[0]], name: tables[name]}, seed) for name in names[1:]]


class Comparison(Record):
    """Metrics of several runs on the same patches, and their differences."""

    split: str
    patches: int
    figures: dict[str, dict[str, Estimate]]
    """Run to metric to value and interval, as in the run's own report."""
    differences: list[Difference]
    """Of every later run from the first."""


def compare_reports(folders: Mapping[str, Path], split: str = "") -> Comparison:
    """Compare the reports in these folders, named by their runs, on one split; by default test where all have it.

    Raises:
        ConfigError: fewer than two runs, no such split, or different patches.
        ModelError: a folder holds no complete report.
    """
    reports = {run: _read_report(folder) for run, folder in folders.items()}
    shared = [name for name in SPLITS if all(name in figures for figures, _ in reports.values())]
    if not shared or (split and split not in shared):
        present = "; ".join(f"{run} has {', '.join(figures)}" for run, (figures, _) in reports.items())
        raise ConfigError(
            f"There is no {f'{split} split' if split else 'split'} that all of these runs were scored on ({present}), "
            "choose other runs"
        )
    split = split or shared[0]
    tables = {run: table[table["split"] == split] for run, (_, table) in reports.items()}
    return Comparison(
        split=split,
        patches=len(next(iter(tables.values()))),
        figures={run: figures[split] for run, (figures, _) in reports.items()},
        differences=compare_with_first(tables),
    )


def _read_report(folder: Path) -> tuple[dict[str, dict[str, Estimate]], pd.DataFrame]:
    """Split to metric to estimate, and the table of predictions. Raises ModelError where one is missing or damaged."""
    try:
        content = read_record(ReportMetrics, folder / "report.json", remedy=REMEDY)
    except OSError as error:
        raise ModelError(
            f"{folder} holds no complete report ({type(error).__name__}), expected report.json and "
            f"predictions.parquet; {REMEDY}"
        ) from error
    table = read_table(folder / "predictions.parquet", COLUMNS, optional=OPTIONAL, remedy=REMEDY, error=ModelError)
    table = table.drop(columns=[name for name in OPTIONAL if table[name].isna().all()])
    return {name: split.figures for name, split in content.splits.items()}, table


def describe_difference(difference: Difference) -> str:
    """A difference as a sentence, for people."""
    chance = difference.low <= 0 <= difference.high
    verdict = "no difference that chance would not make" if chance else "more than chance"
    is_rough = difference.unit == "slides" and difference.units < FEW_SLIDES
    few = f", and {difference.units} are few" if is_rough else ""
    z = "infinite" if difference.z is None else f"{difference.z:.2f}"
    return (
        f"{difference.second} less {difference.first}: AUC {difference.value:+.4f} (95 %: {difference.low:+.4f} to "
        f"{difference.high:+.4f}, paired bootstrap over {difference.units:,} {difference.unit}{few}): {verdict}; "
        f"DeLong over patches: z {z}, p {difference.p:.2g}"
    )


def _aligned(tables: Mapping[str, pd.DataFrame]) -> tuple[tuple[str, str], Tables]:
    """Names of both models, and their tables in the order of the ids. Raises ConfigError on different patches."""
    if len(tables) != 2:
        raise ConfigError(f"Got {len(tables)} tables of predictions, expected two of different names")
    first_name, second_name = tables
    first, second = (table.sort_values("id").reset_index(drop=True) for table in tables.values())
    shared = len(np.intersect1d(first["id"], second["id"]))
    if not (len(first) == len(second) == shared):
        raise ConfigError(
            f"{first_name} was scored on {len(first):,} patches and {second_name} on {len(second):,}, of which "
            f"{shared:,} are the same, expected the same patches; score both on one source"
        )
    for column, what in (("label", "labels"), ("pixels", "pixels under the same names")):
        known = all(column in table and table[column].notna().all() for table in (first, second))
        if known and (first[column].to_numpy() != second[column].to_numpy()).any():
            raise ConfigError(
                f"{first_name} and {second_name} were scored against different {what}; score both on one source"
            )
    return (first_name, second_name), (first, second)
