"""Temperature scaling, its correction for another share of tumour, and reliability curves."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from pcam_model.core.platt_scaling import PlattScaling, prevalence_bias
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


def fit_scaling(labels: Array, log_odds: Array, prevalence: float | None = None) -> PlattScaling:
    """The temperature, and the bias that corrects for a share of tumour of `prevalence`; labels, log_odds: (N,)."""
    bias = 0.0 if prevalence is None else prevalence_bias(prevalence, float(np.mean(labels)))
    return PlattScaling(temperature=fit_temperature(labels, log_odds), bias=bias)


def class_weights(labels: Array, prevalence: float | None) -> Array | None:
    """Weights (N,), of mean 1, that give tumour a share of `prevalence` among labels (N,); None without it."""
    if prevalence is None:
        return None
    share = float(np.mean(labels))
    return np.where(labels == 1, prevalence / share, (1 - prevalence) / (1 - share))


def bin_index(probability: Array) -> Array:
    """The number (N,) of the bin, of 15 of equal width, of each probability (N,)."""
    return np.minimum((np.asarray(probability) * BINS).astype(np.int64), BINS - 1)


def reliability_curve(labels: Array, probability: Array, weights: Array | None = None) -> ReliabilityCurve:
    """Count, mean probability and fraction of tumour of the bins that hold patches; each argument (N,)."""
    index, weights = bin_index(probability), np.ones(len(labels)) if weights is None else weights
    count, weight = (np.bincount(index, values, minlength=BINS) for values in (None, weights))
    used = count > 0
    predicted, observed = (
        np.bincount(index, values * weights, minlength=BINS)[used] / weight[used] for values in (probability, labels)
    )
    return ReliabilityCurve(
        count=count[used].tolist(), mean_predicted=predicted.tolist(), observed_fraction=observed.tolist()
    )
