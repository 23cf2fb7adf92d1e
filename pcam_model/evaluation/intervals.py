"""Figures with 95 % intervals, and curves with 95 % bands."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcam_model.evaluation.calibration import BINS, bin_of
from pcam_model.evaluation.evidence import Figure
from pcam_model.evaluation.resample import RESAMPLES, Scored, Statistics, draws

Array = NDArray[Any]
PERCENT = (2.5, 97.5)
DEFINED = 0.95  # share of the resamples in which a figure must exist


@dataclass(frozen=True)
class Measured:
    """What was measured on a side.

    Attributes:
        points: operating point to figure to value and interval; the figures of no point under "".
        bands: "roc" and "pr" to (3, 101): value, low and high along `resample.GRID`.
        resamples: how many were drawn.
    """

    points: dict[str, dict[str, Figure]]
    bands: dict[str, Array]
    resamples: int


def measure(scored: Scored, seed: int, resamples: int = RESAMPLES, *, bands: bool = True) -> Measured:
    """All figures of a side, with percentile intervals over its units, and with the bands of its curves."""
    statistics = Statistics(scored)
    values = statistics(np.ones((1, scored.units.count)), curves=bands)
    parts: dict[tuple[str, str], list[Array]] = defaultdict(list)
    for weights in draws(scored.units, resamples, seed, patches=len(scored.labels)):
        for point, figures in statistics(weights, curves=bands).items():
            for name, drawn in figures.items():
                parts[point, name].append(drawn)
    drawn_all = {key: np.concatenate(chunks) for key, chunks in parts.items()}
    points = {point: {name: _figure(name, float(value[0]), drawn_all[point, name], scored)
                      for name, value in figures.items() if np.isfinite(value[0])}
              for point, figures in values.items() if point != "curves"}  # fmt: skip
    curves = {name: np.vstack([value, np.nanpercentile(drawn_all["curves", name], PERCENT, axis=0)])
             for name, value in values["curves"].items()}  # fmt: skip
    return Measured(points, curves, resamples)


def _figure(name: str, value: float, drawn: Array, scored: Scored) -> Figure:
    drawn = drawn[np.isfinite(drawn)]
    low, high = percentile_interval(drawn) if len(drawn) else (value, value)
    if name.startswith("ece"):
        low, high = _ece_interval(value, low, high, scored.raw if name == "ece_raw" else scored.probability)
    elif low == high and value in (0.0, 1.0):
        low, high = _nothing_seen(name, value, scored)
    return Figure(value=value, low=low, high=high)


def percentile_interval(drawn: Array) -> tuple[float, float]:
    """The middle 95 % of what was drawn."""
    low, high = np.percentile(drawn, PERCENT)
    return float(low), float(high)


def _ece_interval(value: float, low: float, high: float, probability: Array) -> tuple[float, float]:
    """The reverse percentile interval, since chance adds to an ECE, and more so to that of a resample.

    It starts at 0 where a network that is calibrated perfectly would show as large an ECE by chance.
    """
    spread = np.sqrt(np.bincount(bin_of(probability), probability * (1 - probability), minlength=BINS))
    chance = np.abs(np.random.default_rng(0).normal(size=(RESAMPLES, BINS)) * spread).sum(axis=1) / len(probability)
    start = 0.0 if value <= np.percentile(chance, PERCENT[1]) else max(0.0, 2 * value - high)
    return start, max(value, 2 * value - low)


def _nothing_seen(name: str, value: float, scored: Scored) -> tuple[float, float]:
    """Where every unit was right (or wrong) no draw differs; the exact binomial bound over the units still does."""
    concerned = {"sensitivity": scored.labels == 1, "specificity": scored.labels == 0}
    count = len(np.unique(scored.units.of[concerned.get(name, np.ones(len(scored.labels), bool))]))
    bound = 0.025 ** (1 / max(count, 1))
    return (bound, 1.0) if value == 1.0 else (0.0, 1 - bound)
