"""Temperature scaling and reliability curves."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from pcam_model.evaluation.report_schema import ReliabilityCurve

Array = NDArray[Any]
BINS = 15
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def fit_temperature(labels: Array, log_odds: Array) -> float:
    """The temperature T in 0.05..20 that minimises the NLL of sigmoid(log_odds / T).

    Above 1 the network was overconfident. Dividing all log odds by one number changes no ranking, so no AUC, and no
    prediction at a threshold of 0.5. `labels`: (N,) of 0 and 1; `log_odds`: (N,).
    """
    wrong_side = np.where(labels == 1, -log_odds, log_odds)

    def nll(log_temperature: float) -> float:
        return float(np.logaddexp(0, wrong_side * np.exp(-log_temperature)).mean())

    bounds = (np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))  # NLL is convex in 1 / T, so it has one minimum
    return float(np.exp(minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x))


def bin_index(probability: Array) -> Array:
    """The number (N,) of the bin, of 15 of equal width, of each probability (N,)."""
    return np.minimum((np.asarray(probability) * BINS).astype(np.int64), BINS - 1)


def reliability_curve(labels: Array, probability: Array) -> ReliabilityCurve:
    """Count, mean probability and fraction of tumour of the bins that hold patches; labels (N,), probability (N,)."""
    index = bin_index(probability)
    count = np.bincount(index, minlength=BINS)
    used = count > 0
    predicted, observed = (
        np.bincount(index, values, minlength=BINS)[used] / count[used] for values in (probability, labels)
    )
    return ReliabilityCurve(
        count=count[used].tolist(), mean_predicted=predicted.tolist(), observed_fraction=observed.tolist()
    )
