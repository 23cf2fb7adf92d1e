"""A calibrated logistic regression over the features of slides' heatmaps."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from pcam_model.core.rng import derived_seed
from pcam_model.core.schema import Record
from pcam_model.evaluation.calibration import fit_temperature

Array = NDArray[Any]
FOLDS = 5
MIN_PER_CLASS = 5
"""Slides of each class below which no regression is fitted."""
FOLDS_KEY = 45  # the first number of an RNG key: what the random numbers are for


class SlideRegression(Record):
    """A fitted regression: log odds are `(features - mean) / scale @ coefficients + intercept`, over `temperature`."""

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    temperature: float
    """Fitted on slides that were held out in turn."""
    slides: int
    """How many it was fitted on."""

    def log_odds(self, features: Array) -> Array:
        """Calibrated log odds of tumour (N,) of features (N, k)."""
        return np.asarray(_raw_log_odds(self, features) / self.temperature)


def fit_regression(names: tuple[str, ...], features: Array, labels: Array, seed: int) -> SlideRegression:
    """Fit an L2-penalised logistic regression, and its temperature by cross-validation within the same slides.

    Args:
        names: of the features, k.
        features: (N, k).
        labels: (N,) of 0 and 1, at least two of each.
        seed: of the folds.
    """
    held_out = np.empty(len(labels))
    for train, test in _folds(labels, seed):
        held_out[test] = _raw_log_odds(_fit(names, features[train], labels[train]), features[test])
    return _fit(names, features, labels).model_copy(update={"temperature": fit_temperature(labels, held_out)})


def cross_fit(names: tuple[str, ...], features: Array, labels: Array, seed: int) -> Array:
    """Calibrated log odds (N,) of each slide by a regression that was fitted on the slides of other folds.

    Args:
        names: see `fit_regression`.
        features: (N, k).
        labels: (N,) of 0 and 1, at least `MIN_PER_CLASS` of each.
        seed: of the folds.
    """
    log_odds = np.empty(len(labels))
    for train, test in _folds(labels, seed):
        log_odds[test] = fit_regression(names, features[train], labels[train], seed).log_odds(features[test])
    return log_odds


def _folds(labels: Array, seed: int) -> Iterator[tuple[Array, Array]]:
    count = int(min(FOLDS, np.bincount(labels, minlength=2).min()))
    random_state = derived_seed(seed, FOLDS_KEY) % 2**32
    yield from StratifiedKFold(count, shuffle=True, random_state=random_state).split(labels, labels)


def _fit(names: tuple[str, ...], features: Array, labels: Array) -> SlideRegression:
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(features), labels)
    return SlideRegression(
        features=names,
        mean=tuple(scaler.mean_.tolist()),
        scale=tuple(scaler.scale_.tolist()),
        coefficients=tuple(model.coef_[0].tolist()),
        intercept=float(model.intercept_[0]),
        temperature=1.0,
        slides=len(labels),
    )


def _raw_log_odds(regression: SlideRegression, features: Array) -> Array:
    standardised = (features - np.array(regression.mean)) / np.array(regression.scale)
    return np.asarray(standardised @ np.array(regression.coefficients) + regression.intercept)
