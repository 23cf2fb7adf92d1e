"""How often 95 % intervals hold the truth, in simulated slides whose true figures are known; and how long they take.

    python -m benchmarks.intervals [--trials 400]

A patch's odds are what its class says, a shift of its slide's own and noise, so that AUC, sensitivity and specificity
over all slides that there could be follow from the normal distribution.
"""

import argparse
import time
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.machine import write_result
from pcam_model.evaluation import metrics
from pcam_model.evaluation.bootstrap import (
    ResampledMetrics,
    ResamplingUnits,
    ScoredPatches,
    WeightedMetrics,
    bootstrap_weights,
    concat_resamples,
    jackknife_weights,
)
from pcam_model.evaluation.intervals import PERCENTILES, bca_interval, estimate_intervals

RESAMPLES = 600
SETTINGS = {  # slides, patches a slide, how far slides lie apart, how far the classes do
    "8 slides of 20 patches": (8, 20, 0.7, 2.0),
    "16 slides of 20 patches": (16, 20, 0.7, 2.0),
    "40 slides of 20 patches": (40, 20, 0.7, 2.0),
    "40 slides of 20 patches, AUC 0.99": (40, 20, 0.7, 4.0),
    "200 patches": (200, 1, 0.0, 2.0),
    "60 patches": (60, 1, 0.0, 2.0),
}
Trial = tuple[ScoredPatches, dict[str, float]]


def trial(random: np.random.Generator, slides: int, each: int, spread: float, apart: float) -> Trial:
    """Scored patches, and their true metrics."""
    slide, label = np.repeat(np.arange(slides), each), random.integers(0, 2, slides * each)
    odds = apart * (label - 0.5) + random.normal(0, 1, len(slide)) + random.normal(0, spread, slides)[slide]
    wide = np.sqrt(1 + spread**2)
    half = float(norm.cdf(apart / 2 / wide))
    true = {"auc": float(norm.cdf(apart / np.sqrt(2) / wide)), "sensitivity": half, "specificity": half}
    probability = metrics.sigmoid(odds)
    return ScoredPatches(
        label, odds, probability, probability, {"own": odds > 0}, ResamplingUnits(slide, slides, "slides")
    ), true


def held(scored: ScoredPatches, true: dict[str, float]) -> dict[str, list[bool]]:
    """For each metric: whether the percentile interval, and whether ours, holds the truth."""
    metric_values, units = WeightedMetrics(scored), scored.units
    drawn, left_out = bootstrap_weights(units, RESAMPLES, 3), jackknife_weights(units, 3)
    resampled = concat_resamples(metric_values(each, curves=False) for each in drawn)
    jackknifed = concat_resamples(metric_values(each, curves=False) for each in left_out)
    value = metric_values(np.ones((1, units.count)), curves=False)
    result = {}
    for name, truth in true.items():
        plain = np.nanpercentile(of_metric(resampled, name), PERCENTILES)
        point = float(of_metric(value, name)[0])
        ours = bca_interval(point, of_metric(resampled, name), of_metric(jackknifed, name), units.count)
        result[name] = [bool(low <= truth <= high) for low, high in (plain, ours)]
    return result


def of_metric(resampled: ResampledMetrics, name: str) -> np.ndarray:
    """The values (R,) of AUC, or of a metric of the threshold."""
    return resampled.threshold_free[name] if name == "auc" else resampled.by_point["own"][name]


def coverage(trials: int, setting: tuple[int, int, float, float]) -> dict[str, Any]:
    random = np.random.default_rng(0)
    each = [held(*trial(random, *setting)) for _ in range(trials)]
    shares = {name: np.mean([one[name] for one in each], axis=0).round(3).tolist() for name in each[0]}
    return {name: {"percentile": plain, "ours": ours} for name, (plain, ours) in shares.items()}


def seconds(patches: int, slides: int) -> float:
    """All figures of a large split, with 2,000 resamples and the bands of its curves."""
    scored, _ = trial(np.random.default_rng(1), slides, patches // slides, 0.7, 3.0)
    start = time.perf_counter()
    estimate_intervals(scored, 2)
    return round(time.perf_counter() - start, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--patches", type=int, default=200_000)
    args = parser.parse_args()
    figures: dict[str, Any] = {"trials": args.trials, "resamples": RESAMPLES, "should be": 0.95}
    for name, setting in SETTINGS.items():
        figures[name] = coverage(args.trials, setting)
        print(name, figures[name], flush=True)
    figures["seconds"] = {f"{args.patches:,} patches on 216 slides": seconds(args.patches, 216)}
    write_result("intervals", f"python -m benchmarks.intervals --trials {args.trials}", figures)


if __name__ == "__main__":
    main()
