"""Figures with 95 % intervals, and curves with 95 % bands."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from pcam_model.evaluation.bootstrap import RESAMPLES, ScoringResult, Statistics, draws, left_out
from pcam_model.evaluation.calibration import BINS, bin_of
from pcam_model.evaluation.evidence import Figure

Array = NDArray[Any]
PERCENT = (2.5, 97.5)


@dataclass(frozen=True)
class IntervalEstimates:
    """What was measured on a side.

    Attributes:
        points: operating point to figure to value and interval; the figures of no point under "".
        bands: "roc" and "pr" to (3, 101): value, low and high along `resample.GRID`.
        resamples: how many were drawn.
    """

    points: dict[str, dict[str, Figure]]
    bands: dict[str, Array]
    resamples: int


def measure(scored: ScoringResult, seed: int, resamples: int = RESAMPLES, *, bands: bool = True) -> IntervalEstimates:
    """All figures of a side, with BCa intervals over its units, and with the pointwise bands of its curves."""
    statistics, of, patches = Statistics(scored), scored.units, len(scored.labels)
    values = statistics(np.ones((1, of.count)), curves=bands)
    drawn = gathered(statistics(weights, curves=bands) for weights in draws(of, resamples, seed, patches=patches))
    without = gathered(statistics(weights, curves=False) for weights in left_out(of, seed, patches=patches))
    points = {point: {name: _figure(point, name, float(value[0]), drawn[point, name], without[point, name], scored)
                      for name, value in figures.items() if np.isfinite(value[0])}
              for point, figures in values.items() if point != "curves"}  # fmt: skip
    curves = {name: np.vstack([value, np.nanpercentile(drawn["curves", name], PERCENT, axis=0)])
             for name, value in values["curves"].items()}  # fmt: skip
    return IntervalEstimates(points, curves, resamples)


def gathered(parts: Iterable[dict[str, dict[str, Array]]]) -> dict[tuple[str, str], Array]:
    """Operating point and figure to all that was drawn of it, (R,); curves (R, 101)."""
    chunks: dict[tuple[str, str], list[Array]] = defaultdict(list)
    for part in parts:
        for point, figures in part.items():
            for name, values in figures.items():
                chunks[point, name].append(values)
    return {key: np.concatenate(each) for key, each in chunks.items()}


def _figure(point: str, name: str, value: float, drawn: Array, without: Array, scored: ScoringResult) -> Figure:
    low, high = bca_interval(value, drawn, without, scored.units.count)
    if name.startswith("ece"):
        low, high = np.percentile(drawn[np.isfinite(drawn)], PERCENT)
        low, high = _ece_interval(value, low, high, scored.raw if name == "ece_raw" else scored.probability)
    elif low == high and value in (0.0, 1.0):
        low, high = _nothing_seen(point, name, value, scored)
    return Figure(value=value, low=low, high=high)


def bca_interval(value: float, drawn: Array, without: Array, units: int) -> tuple[float, float]:
    """Bias-corrected and accelerated 95 % interval (Efron, 1987), widened as Student's t is for few units.

    Near 0 and 1, where draws lie askew, and over few slides it holds the truth more often than plain percentiles.

    Args:
        value: the figure.
        drawn: of the resamples (R,); NaN where a draw has no such figure, as of one class.
        without: of the jackknife (groups,).
        units: how many were drawn with replacement.
    """
    drawn, without = drawn[np.isfinite(drawn)], without[np.isfinite(without)]
    if not len(drawn) or units < 2:
        return value, value
    below = float(np.mean(drawn < value) + np.mean(drawn == value) / 2)
    bias = norm.ppf(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    pull = without.mean() - without if len(without) else np.zeros(1)
    spread = float((pull**2).sum())
    skew = float((pull**3).sum()) / (6 * spread**1.5) if spread > 1e-30 else 0.0
    reach = bias + np.sqrt(units / (units - 1)) * student.ppf(np.array(PERCENT) / 100, units - 1)
    scale = 1 - skew * reach
    at = norm.cdf(np.where(scale > 0, bias + reach / np.maximum(scale, 1e-12), np.copysign(np.inf, reach)))
    low, high = np.quantile(drawn, at)
    return min(float(low), value), max(float(high), value)


def _ece_interval(value: float, low: float, high: float, probability: Array) -> tuple[float, float]:
    """The reverse percentile interval, since chance adds to an ECE, and more so to that of a resample.

    It starts at 0 where a network that is calibrated perfectly would show as large an ECE by chance.
    """
    spread = np.sqrt(np.bincount(bin_of(probability), probability * (1 - probability), minlength=BINS))
    chance = np.abs(np.random.default_rng(0).normal(size=(RESAMPLES, BINS)) * spread).sum(axis=1) / len(probability)
    start = 0.0 if value <= np.percentile(chance, PERCENT[1]) else max(0.0, 2 * value - high)
    return start, max(value, 2 * value - low)


def _nothing_seen(point: str, name: str, value: float, scored: ScoringResult) -> tuple[float, float]:
    """Where every unit was right (or wrong) no draw differs; the exact binomial bound over the units still does.

    The units are those that the figure speaks of: of the tumours, of what was called tumour, of the rarer class.
    """
    tumour, called = scored.labels == 1, scored.called.get(point, np.ones(len(scored.labels), bool))
    all_, rarer = np.ones(len(tumour), bool), min(tumour, ~tumour, key=np.count_nonzero)
    concerned = {"accuracy": all_, "sensitivity": tumour, "specificity": ~tumour, "ppv": called, "npv": ~called,
                 "f1": tumour}  # fmt: skip
    count = len(np.unique(scored.units.of[concerned.get(name, rarer)]))
    bound = 0.025 ** (1 / max(count, 1))
    return (bound, 1.0) if value == 1.0 else (0.0, 1 - bound)
