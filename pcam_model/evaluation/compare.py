"""Which of two models is better, and could that be chance?"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from pcam_model.errors import BadPlan
from pcam_model.evaluation import metrics
from pcam_model.evaluation.intervals import percentile_interval
from pcam_model.evaluation.resample import RESAMPLES, Scored, Statistics, draws, units
from pcam_model.records import Record

Array = NDArray[Any]


class Difference(Record):
    """The AUC of the second model less that of the first, on the same patches."""

    first: str
    second: str
    auc_first: float
    auc_second: float
    value: float
    low: float
    """Lower end of the 95 % interval, by a paired bootstrap."""
    high: float
    over: str
    """What the bootstrap drew: slides or patches."""
    z: float
    """DeLong's; it takes patches for independent, so with slides the interval above is the safer word."""
    p: float
    """DeLong's two-sided p-value."""


def auc_difference(pair: Mapping[str, pd.DataFrame], seed: int = 2, resamples: int = RESAMPLES) -> Difference:
    """Compare two tables of predictions (id, slide, label, logit0, logit1), named by their models.

    Raises:
        BadPlan: not two, or they judge different patches.
        BadSplit: one class only.
    """
    (first, one), (second, other) = _same_patches(pair)
    labels = metrics.checked_labels(one["label"].to_numpy(), "compared")
    odds = [metrics.margin(table[["logit0", "logit1"]].to_numpy()) for table in (one, other)]
    areas, z, p = delong(labels, odds[0], odds[1])
    of = units(one["slide"])
    both = [Statistics(Scored(labels, each, metrics.sigmoid(each), metrics.sigmoid(each), {}, of)) for each in odds]
    drawn = [_auc(both[1], weights) - _auc(both[0], weights)
             for weights in draws(of, resamples, seed, patches=len(labels))]  # fmt: skip
    gaps = np.concatenate(drawn)
    low, high = percentile_interval(gaps[np.isfinite(gaps)])
    return Difference(first=first, second=second, auc_first=areas[0], auc_second=areas[1], value=areas[1] - areas[0],
                      low=low, high=high, over=of.kind, z=z, p=p)  # fmt: skip


def _auc(statistics: Statistics, weights: Array) -> Array:
    return statistics(weights, curves=False)[""]["auc"]


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
        BadPlan: fewer than two models, or they judge different patches.
    """
    names = list(tables)
    if len(names) < 2:
        raise BadPlan(f"There is nothing to compare {names} with, expected two runs or more")
    return [auc_difference({names[0]: tables[names[0]], name: tables[name]}, seed) for name in names[1:]]


def _same_patches(pair: Mapping[str, pd.DataFrame]) -> list[tuple[str, pd.DataFrame]]:
    """Both tables in the order of their ids."""
    if len(pair) != 2:
        raise BadPlan(f"Got {len(pair)} tables of predictions, expected two of different names")
    sorted_ = [(name, table.sort_values("id").reset_index(drop=True)) for name, table in pair.items()]
    (first, one), (second, other) = sorted_
    shared = len(np.intersect1d(one["id"], other["id"]))
    if not (len(one) == len(other) == shared):
        raise BadPlan(
            f"{first} was scored on {len(one):,} patches and {second} on {len(other):,}, of which {shared:,} are the "
            "same, expected the same patches; score both on one source"
        )
    if (one["label"].to_numpy() != other["label"].to_numpy()).any():
        raise BadPlan(f"{first} and {second} were scored against different labels; score both on one source")
    return sorted_
