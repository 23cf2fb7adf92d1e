"""Calibration: does 0.8 mean eight in ten?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcam_model.evaluation.metrics import sigmoid

Array = NDArray[Any]
BINS = 15
COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(labels: Array, odds: Array) -> float:
    """The temperature T with the lowest NLL of sigmoid(odds / T), in 0.05..20.

    Above 1 the network was too sure of itself. Dividing all odds by one number changes no ranking, so no AUC, and no
    decision at 0.5. `labels`: (N,) of 0 and 1; `odds`: (N,) log odds. NLL is convex in 1 / T: its slope is bisected.
    """
    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(60):
        middle = (low * high) ** 0.5
        slope = np.mean((sigmoid(middle * odds) - labels) * odds)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float((low * high) ** -0.5)


def bin_of(probability: Array) -> Array:
    """Which of the 15 bins of equal width a probability (N,) falls into."""
    return np.minimum((np.asarray(probability) * BINS).astype(np.int64), BINS - 1)


def reliability(labels: Array, probability: Array) -> dict[str, Array]:
    """The bins that hold patches: how many, their mean probability and the share that is tumour, (bins,) each."""
    at = bin_of(probability)
    count = np.bincount(at, minlength=BINS)
    there = count > 0
    said = np.bincount(at, probability, minlength=BINS)[there] / count[there]
    was = np.bincount(at, labels, minlength=BINS)[there] / count[there]
    return {"count": count[there], "mean_predicted": said, "observed_fraction": was}
