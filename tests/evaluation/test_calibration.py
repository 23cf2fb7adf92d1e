"""A temperature is the best one, helps where it was not fitted, and moves no ranking."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from pcam_model.evaluation import calibration, metrics


def overconfident(count: int, seed: int, heat: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and log odds that are too large by `heat`."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 2, count)
    return (rng.random(count) < metrics.sigmoid(odds)).astype(int), heat * odds


def test_the_temperature_is_the_one_with_the_lowest_nll():
    labels, odds = overconfident(3000, 1)
    grid = np.geomspace(1.5, 4, 100)
    best = grid[np.argmin([log_loss(labels, metrics.sigmoid(odds / each)) for each in grid])]
    assert calibration.fit_temperature(labels, odds) == pytest.approx(best, rel=0.01)
    assert calibration.fit_temperature(labels, odds) == pytest.approx(2.5, rel=0.15)


def test_it_is_where_the_slope_of_the_nll_is_zero():
    labels, odds = overconfident(3000, 1)
    low, high = 1 / calibration.MAX_TEMPERATURE, 1 / calibration.MIN_TEMPERATURE
    for _ in range(60):  # NLL is convex in 1 / T: its slope is bisected
        middle = (low * high) ** 0.5
        slope = np.mean((metrics.sigmoid(middle * odds) - labels) * odds)
        low, high = (low, middle) if slope > 0 else (middle, high)
    assert calibration.fit_temperature(labels, odds) == pytest.approx((low * high) ** -0.5, rel=1e-6)


def test_it_lowers_nll_and_ece_where_it_was_not_fitted_and_leaves_auc_and_decisions():
    temperature = calibration.fit_temperature(*overconfident(2000, 1))
    labels, odds = overconfident(2000, 2)
    assert log_loss(labels, metrics.sigmoid(odds / temperature)) < log_loss(labels, metrics.sigmoid(odds))
    assert roc_auc_score(labels, odds / temperature) == roc_auc_score(labels, odds)
    assert ((metrics.sigmoid(odds / temperature) >= 0.5) == (metrics.sigmoid(odds) >= 0.5)).all()


def test_labels_that_separate_perfectly_give_the_lowest_temperature_and_wrong_ones_the_highest():
    odds = np.array([-2.0, -1.0, 1.0, 2.0])
    assert calibration.fit_temperature(np.array([0, 0, 1, 1]), odds) == pytest.approx(calibration.MIN_TEMPERATURE)
    assert calibration.fit_temperature(np.array([1, 1, 0, 0]), odds) == pytest.approx(calibration.MAX_TEMPERATURE)


def test_reliability_counts_every_patch_once_even_at_the_ends():
    bins = calibration.reliability_curve(np.array([0, 0, 1, 1]), np.array([0.0, 0.02, 0.99, 1.0]))
    assert bins.count == [2, 2]
    assert bins.mean_predicted == pytest.approx([0.01, 0.995])
    assert bins.observed_fraction == [0, 1]
