"""Metrics with 95 % intervals, and curves with 95 % bands."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student_t

from pcam_model.core.estimate import Estimate
from pcam_model.evaluation.bootstrap import (
    RESAMPLES,
    ScoredPatches,
    WeightedMetrics,
    bootstrap_weights,
    concat_resamples,
    jackknife_weights,
)
from pcam_model.evaluation.calibration import BINS, bin_index

Array = NDArray[Any]
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class IntervalEstimates:
    """The metrics of a split with their intervals.

    Attributes:
        by_point: operating point to the metrics of its threshold.
        threshold_free: the metrics that no threshold decides.
        bands: "roc" and "pr" to (3, 101): value, low and high along `bootstrap.CURVE_GRID`.
        resamples: number of bootstrap resamples.
    """

    by_point: dict[str, dict[str, Estimate]]
    threshold_free: dict[str, Estimate]
    bands: dict[str, Array]
    resamples: int


def estimate_intervals(
    scored: ScoredPatches, seed: int, resamples: int = RESAMPLES, *, bands: bool = True
) -> IntervalEstimates:
    """All metrics of a split, with BCa intervals over its units, and the pointwise bands of its curves."""
    metrics, units = WeightedMetrics(scored), scored.units
    values = metrics(np.ones((1, units.count)), curves=bands)
    resampled = concat_resamples(
        metrics(weights, curves=bands) for weights in bootstrap_weights(units, resamples, seed)
    )
    jackknifed = concat_resamples(metrics(weights, curves=False) for weights in jackknife_weights(units, seed))

    def estimates(
        values: dict[str, Array], resampled: dict[str, Array], jackknifed: dict[str, Array], positive: Array
    ) -> dict[str, Estimate]:
        return {
            name: _estimate(name, float(value[0]), resampled[name], jackknifed[name], scored, positive)
            for name, value in values.items()
            if np.isfinite(value[0])
        }

    by_point = {
        point: estimates(values.by_point[point], resampled.by_point[point], jackknifed.by_point[point], predicted)
        for point, predicted in scored.predicted.items()
    }
    everything = np.ones(len(scored.labels), bool)
    threshold_free = estimates(values.threshold_free, resampled.threshold_free, jackknifed.threshold_free, everything)
    curves = {
        name: np.vstack([value, np.nanpercentile(resampled.curves[name], PERCENTILES, axis=0)])
        for name, value in values.curves.items()
    }
    return IntervalEstimates(by_point, threshold_free, curves, resamples)


def _estimate(
    name: str, value: float, resampled: Array, jackknifed: Array, scored: ScoredPatches, predicted: Array
) -> Estimate:
    low, high = bca_interval(value, resampled, jackknifed, scored.units.count)
    if name.startswith("ece"):
        low, high = np.percentile(resampled[np.isfinite(resampled)], PERCENTILES)
        probability = scored.uncalibrated if name == "ece_raw" else scored.probability
        low, high = _ece_interval(value, low, high, probability, scored.weights)
    elif low == high and value in (0.0, 1.0):
        low, high = _exact_interval(name, value, scored, predicted)
    return Estimate(value=value, low=low, high=high)


def bca_interval(value: float, resampled: Array, jackknifed: Array, units: int) -> tuple[float, float]:
    """Bias-corrected and accelerated 95 % interval (Efron, 1987), widened by Student's t for few units.

    Near 0 and 1, where resamples are skewed, and over few slides its coverage is better than that of percentiles.

    Args:
        value: the metric.
        resampled: of the bootstrap (R,); NaN where a resample has no such metric, as of one class.
        jackknifed: of the jackknife (groups,).
        units: how many are resampled.
    """
    resampled, jackknifed = resampled[np.isfinite(resampled)], jackknifed[np.isfinite(jackknifed)]
    if not len(resampled) or units < 2:
        return value, value
    below = float(np.mean(resampled < value) + np.mean(resampled == value) / 2)
    bias = norm.ppf(np.clip(below, 0.5 / len(resampled), 1 - 0.5 / len(resampled)))
    influence = jackknifed.mean() - jackknifed if len(jackknifed) else np.zeros(1)
    squares = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * squares**1.5) if squares > 1e-30 else 0.0
    z = bias + np.sqrt(units / (units - 1)) * student_t.ppf(np.array(PERCENTILES) / 100, units - 1)
    scale = 1 - acceleration * z
    quantiles = norm.cdf(np.where(scale > 0, bias + z / np.maximum(scale, 1e-12), np.copysign(np.inf, z)))
    low, high = np.quantile(resampled, quantiles)
    return min(float(low), value), max(float(high), value)


def _ece_interval(
    value: float, low: float, high: float, probability: Array, weights: Array | None
) -> tuple[float, float]:
    """The reverse percentile interval, since chance adds to an ECE, and more so to that of a resample.

    It starts at 0 where a perfectly calibrated network would have as large an ECE by chance.
    """
    weights = np.ones(len(probability)) if weights is None else weights
    variance = weights**2 * probability * (1 - probability)
    std = np.sqrt(np.bincount(bin_index(probability), variance, minlength=BINS))
    by_chance = np.abs(np.random.default_rng(0).normal(size=(RESAMPLES, BINS)) * std).sum(axis=1) / weights.sum()
    start = 0.0 if value <= np.percentile(by_chance, PERCENTILES[1]) else max(0.0, 2 * value - high)
    return start, max(value, 2 * value - low)


def _exact_interval(name: str, value: float, scored: ScoredPatches, predicted: Array) -> tuple[float, float]:
    """The exact binomial bound for a metric of 0 or 1, where all resamples are equal.

    It is over the units that the metric is of: those with tumour, those predicted as tumour, or of the rarer class.
    """
    tumour = scored.labels == 1
    everything, rarer = np.ones(len(tumour), bool), min(tumour, ~tumour, key=np.count_nonzero)
    patches = {
        "accuracy": everything,
        "sensitivity": tumour,
        "specificity": ~tumour,
        "ppv": predicted,
        "npv": ~predicted,
        "f1": tumour,
    }
    count = len(np.unique(scored.units.index[patches.get(name, rarer)]))
    return exact_interval(value, count)


def exact_interval(value: float, count: int) -> tuple[float, float]:
    """The exact binomial 95 % interval of a share of 0 or 1 of `count` units."""
    bound = 0.025 ** (1 / max(count, 1))
    return (bound, 1.0) if value == 1.0 else (0.0, 1 - bound)
