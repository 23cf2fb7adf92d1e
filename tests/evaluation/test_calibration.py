"""A temperature is the best one, helps where it was not fitted, and moves no ranking."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from pcam_model.evaluation import calibration, metrics


def overconfident(count: int, seed: int, heat: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    odds = random.normal(0, 2, count)
    return (random.random(count) < metrics.sigmoid(odds)).astype(int), heat * odds


def test_the_temperature_is_the_one_with_the_lowest_nll():
    labels, odds = overconfident(3000, 1)
    grid = np.geomspace(0.2, 10, 400)
    best = grid[np.argmin([log_loss(labels, metrics.sigmoid(odds / each)) for each in grid])]
    assert calibration.fit_temperature(labels, odds) == pytest.approx(best, rel=0.01)
    assert calibration.fit_temperature(labels, odds) == pytest.approx(2.5, rel=0.15)


def test_it_lowers_nll_and_ece_where_it_was_not_fitted_and_leaves_auc_and_decisions():
    temperature = calibration.fit_temperature(*overconfident(2000, 1))
    labels, odds = overconfident(2000, 2)
    assert log_loss(labels, metrics.sigmoid(odds / temperature)) < log_loss(labels, metrics.sigmoid(odds))
    assert roc_auc_score(labels, odds / temperature) == roc_auc_score(labels, odds)
    assert ((metrics.sigmoid(odds / temperature) >= 0.5) == (metrics.sigmoid(odds) >= 0.5)).all()


def test_labels_that_separate_perfectly_give_the_coldest_temperature_and_noise_the_hottest():
    odds = np.array([-2.0, -1.0, 1.0, 2.0])
    assert calibration.fit_temperature(np.array([0, 0, 1, 1]), odds) == pytest.approx(calibration.COLDEST)
    assert calibration.fit_temperature(np.array([1, 1, 0, 0]), odds) == pytest.approx(calibration.HOTTEST)


def test_reliability_counts_every_patch_once_even_at_the_ends():
    bins = calibration.reliability(np.array([0, 0, 1, 1]), np.array([0.0, 0.02, 0.99, 1.0]))
    assert bins["count"].tolist() == [2, 2]
    assert bins["said"] == pytest.approx([0.01, 0.995])
    assert bins["was"].tolist() == [0, 1]
