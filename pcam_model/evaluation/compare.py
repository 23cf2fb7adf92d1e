"""Which of two models is better, and could that be chance?"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from pcam_model.core.errors import ConfigError, ModelError
from pcam_model.core.schema import Record
from pcam_model.evaluation import metrics
from pcam_model.evaluation.bootstrap import (
    FEW,
    RESAMPLES,
    ResamplingUnits,
    ScoringResult,
    Statistics,
    draws,
    left_out,
    units,
)
from pcam_model.evaluation.evidence import Figure
from pcam_model.evaluation.intervals import bca_interval, gathered

Array = NDArray[Any]
SIDES = ("valid", "new")
NAMES = tuple(metrics.NAMES)
OWN = "own"  # each model's own operating point


class Difference(Record):
    """The figures of the second model less those of the first, on the same patches."""

    first: str
    second: str
    auc_first: float
    auc_second: float
    value: float
    """The difference in AUC."""
    low: float
    """Lower end of the 95 % interval, by a paired bootstrap."""
    high: float
    unit: str
    """What the bootstrap drew: slides or patches."""
    units: int
    """How many of them there are."""
    z: float
    """DeLong's; it takes patches for independent, so with slides the interval above is the safer word."""
    p: float
    """DeLong's two-sided p-value."""
    figures: dict[str, Figure]
    """The difference in every figure, with its interval from the same paired draws."""


def auc_difference(pair: Mapping[str, pd.DataFrame], seed: int = 2, resamples: int = RESAMPLES) -> Difference:
    """Compare two tables of predictions (id, slide, label, logit0, logit1), named by their models.

    Columns `probability` and `called`, as a report has them, are used as they are; without them the logits speak, and
    0.5 is the threshold.

    Raises:
        ConfigError: not two, or they judge different patches.
        SplitError: one class only.
    """
    (first, one), (second, other) = _same_patches(pair)
    labels = metrics.checked_labels(one["label"].to_numpy(), "compared")
    of = max((units(table["slide"]) for table in (one, other)), key=lambda each: each.kind == "slides")
    scored = [_scored(table, labels, of) for table in (one, other)]
    areas, z, p = delong(labels, scored[0].odds, scored[1].odds)
    figures = _differences(Statistics(scored[0]), Statistics(scored[1]), resamples, seed)
    low, high = figures["auc"].low or 0.0, figures["auc"].high or 0.0
    return Difference(first=first, second=second, auc_first=areas[0], auc_second=areas[1], value=areas[1] - areas[0],
                      low=low, high=high, unit=of.kind, units=of.count, z=z, p=p,
                      figures=figures)  # fmt: skip


def _scored(table: pd.DataFrame, labels: Array, of: ResamplingUnits) -> ScoringResult:
    odds = metrics.margin(table[["logit0", "logit1"]].to_numpy())
    said = table["probability"].to_numpy() if "probability" in table else metrics.sigmoid(odds)
    called = table["called"].to_numpy(bool) if "called" in table else said >= 0.5
    return ScoringResult(labels, odds, said, said, {OWN: called}, of)


def _differences(first: Statistics, second: Statistics, resamples: int, seed: int) -> dict[str, Figure]:
    """Every figure of the second less that of the first, with both judged on the same draws."""
    of, patches = first.scored.units, len(first.scored.labels)

    def gaps(weights: Iterable[Array]) -> dict[tuple[str, str], Array]:
        return gathered({"": _gaps(first, second, each)} for each in weights)

    drawn, without = gaps(draws(of, resamples, seed, patches=patches)), gaps(left_out(of, seed, patches=patches))
    found = {}
    for (_, name), value in gaps([np.ones((1, of.count))]).items():
        if np.isfinite(value[0]):
            low, high = bca_interval(float(value[0]), drawn["", name], without["", name], of.count)
            found[name] = Figure(value=float(value[0]), low=low, high=high)
    return found


def _gaps(first: Statistics, second: Statistics, weights: Array) -> dict[str, Array]:
    one, other = ({**said[OWN], **said[""]} for said in (each(weights, curves=False) for each in (first, second)))
    return {name: other[name] - one[name] for name in metrics.NAMES}


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


def side_by_side(tables: Mapping[str, pd.DataFrame], seed: int = 2) -> list[Difference]:
    """Every later model against the first.

    Raises:
        ConfigError: fewer than two models, or they judge different patches.
    """
    names = list(tables)
    if len(names) < 2:
        raise ConfigError(f"There is nothing to compare {' '.join(names)} with, expected two different runs or more")
    return [auc_difference({names[0]: tables[names[0]], name: tables[name]}, seed) for name in names[1:]]


class Comparison(Record):
    """Runs side by side."""

    side: str
    patches: int
    figures: dict[str, dict[str, Figure]]
    """Run to figure to value and interval, as its own report has them."""
    differences: list[Difference]
    """Every later run against the first."""


def compare_reports(folders: Mapping[str, Path], side: str = "") -> Comparison:
    """Compare the reports in these folders, named by their runs, on one side: test where all have it, unless told.

    Raises:
        ConfigError: fewer than two, no such side, or other patches.
        ModelError: a folder holds no whole report.
    """
    read = {name: _read(folder) for name, folder in folders.items()}
    there = [each for each in ("test", *SIDES) if all(each in figures for figures, _ in read.values())]
    if not there or (side and side not in there):
        had = "; ".join(f"{name} has {', '.join(figures)}" for name, (figures, _) in read.items())
        raise ConfigError(
            f"There is no {side or 'side'} that all of these runs were scored on ({had}), choose other runs"
        )
    side = side or there[0]
    tables = {name: table[table["side"] == side] for name, (_, table) in read.items()}
    differences = side_by_side(tables)
    return Comparison(side=side, patches=len(next(iter(tables.values()))), differences=differences,
                      figures={name: figures[side] for name, (figures, _) in read.items()})  # fmt: skip


def _read(folder: Path) -> tuple[dict[str, dict[str, Figure]], pd.DataFrame]:
    try:
        content = json.loads((folder / "report.json").read_bytes())
        table = pd.read_parquet(folder / "predictions.parquet")
        figures = {side: {name: Figure(**figure) for name, figure in found["figures"].items()}
                   for side, found in content["sides"].items()}  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} holds no whole report ({type(error).__name__}), expected report.json and predictions.parquet; "
            "score the model again"
        ) from error
    return figures, table


def sentence(found: Difference) -> str:
    """A difference for people."""
    said = "no difference that chance would not make" if found.low <= 0 <= found.high else "more than chance"
    few = f", and {found.units} are few" if found.unit == "slides" and found.units < FEW else ""
    return (
        f"{found.second} less {found.first}: AUC {found.value:+.4f} (95 %: {found.low:+.4f} to {found.high:+.4f}, "
        f"paired bootstrap over {found.units:,} {found.unit}{few}): {said}; DeLong over patches: z {found.z:.2f}, "
        f"p {found.p:.2g}"
    )


def _same_patches(pair: Mapping[str, pd.DataFrame]) -> list[tuple[str, pd.DataFrame]]:
    """Both tables in the order of their ids."""
    if len(pair) != 2:
        raise ConfigError(f"Got {len(pair)} tables of predictions, expected two of different names")
    sorted_ = [(name, table.sort_values("id").reset_index(drop=True)) for name, table in pair.items()]
    (first, one), (second, other) = sorted_
    shared = len(np.intersect1d(one["id"], other["id"]))
    if not (len(one) == len(other) == shared):
        raise ConfigError(
            f"{first} was scored on {len(one):,} patches and {second} on {len(other):,}, of which {shared:,} are the "
            "same, expected the same patches; score both on one source"
        )
    for column, differ in (("label", "labels"), ("pixels", "pixels under the same names")):
        known = all(column in table and table[column].notna().all() for table in (one, other))
        if known and (one[column].to_numpy() != other[column].to_numpy()).any():
            raise ConfigError(f"{first} and {second} were scored against different {differ}; score both on one source")
    return sorted_
