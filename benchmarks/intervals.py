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
from pcam_model.evaluation.bootstrap import ResamplingUnits, ScoringResult, Statistics, draws, left_out
from pcam_model.evaluation.intervals import PERCENT, bca_interval, gathered, measure

RESAMPLES = 600
SETTINGS = {  # slides, patches a slide, how far slides lie apart, how far the classes do
    "8 slides of 20 patches": (8, 20, 0.7, 2.0),
    "16 slides of 20 patches": (16, 20, 0.7, 2.0),
    "40 slides of 20 patches": (40, 20, 0.7, 2.0),
    "40 slides of 20 patches, AUC 0.99": (40, 20, 0.7, 4.0),
    "200 patches": (200, 1, 0.0, 2.0),
    "60 patches": (60, 1, 0.0, 2.0),
}
Trial = tuple[ScoringResult, dict[str, float]]


def trial(random: np.random.Generator, slides: int, each: int, layer_lr_multipliers: float, apart: float) -> Trial:
    """Judged patches, and their true figures."""
    slide, label = np.repeat(np.arange(slides), each), random.integers(0, 2, slides * each)
    odds = apart * (label - 0.5) + random.normal(0, 1, len(slide)) + random.normal(0, layer_lr_multipliers, slides)[slide]
    wide = np.sqrt(1 + layer_lr_multipliers**2)
    half = float(norm.cdf(apart / 2 / wide))
    true = {"auc": float(norm.cdf(apart / np.sqrt(2) / wide)), "sensitivity": half, "specificity": half}
    said = metrics.sigmoid(odds)
    return ScoringResult(label, odds, said, said, {"own": odds > 0}, ResamplingUnits(slide, slides, "slides")), true


def held(scored: ScoringResult, true: dict[str, float]) -> dict[str, list[bool]]:
    """Figure to whether plain percentiles, and whether our interval, hold the truth."""
    statistics, of, patches = Statistics(scored), scored.units, len(scored.labels)
    drawn = gathered(statistics(each, curves=False) for each in draws(of, RESAMPLES, 3, patches=patches))
    without = gathered(statistics(each, curves=False) for each in left_out(of, 3, patches=patches))
    value = gathered([statistics(np.ones((1, of.count)), curves=False)])
    found = {}
    for name, truth in true.items():
        key = ("" if name == "auc" else "own", name)
        plain = np.nanpercentile(drawn[key], PERCENT)
        ours = bca_interval(float(value[key][0]), drawn[key], without[key], of.count)
        found[name] = [bool(low <= truth <= high) for low, high in (plain, ours)]
    return found


def coverage(trials: int, setting: tuple[int, int, float, float]) -> dict[str, Any]:
    random = np.random.default_rng(0)
    each = [held(*trial(random, *setting)) for _ in range(trials)]
    shares = {name: np.mean([one[name] for one in each], axis=0).round(3).tolist() for name in each[0]}
    return {name: {"percentile": plain, "ours": ours} for name, (plain, ours) in shares.items()}


def seconds(patches: int, slides: int) -> float:
    """All figures of a large side, with 2,000 resamples and the bands of its curves."""
    scored, _ = trial(np.random.default_rng(1), slides, patches // slides, 0.7, 3.0)
    start = time.perf_counter()
    measure(scored, 2)
    return round(time.perf_counter() - start, 1)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--trials", type=int, default=400)
    words.add_argument("--patches", type=int, default=200_000)
    asked = words.parse_args()
    figures: dict[str, Any] = {"trials": asked.trials, "resamples": RESAMPLES, "should be": 0.95}
    for name, setting in SETTINGS.items():
        figures[name] = coverage(asked.trials, setting)
        print(name, figures[name], flush=True)
    figures["seconds"] = {f"{asked.patches:,} patches on 216 slides": seconds(asked.patches, 216)}
    write_result("intervals", f"python -m benchmarks.intervals --trials {asked.trials}", figures)


if __name__ == "__main__":
    main()
