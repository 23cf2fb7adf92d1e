"""The debiased exponential moving average."""

import numpy as np

from pcam_model.core.smoothing import debiased_ema


def test_a_constant_series_stays_as_it_is() -> None:
    np.testing.assert_allclose(debiased_ema([3.0] * 20, 0.9), 3.0)


def test_each_value_is_the_weighted_mean_of_those_before() -> None:
    values, beta = np.random.default_rng(0).normal(size=12), 0.8
    for step, smoothed in enumerate(debiased_ema(values, beta)):
        weights = beta ** np.arange(step, -1, -1)
        np.testing.assert_allclose(smoothed, np.average(values[: step + 1], weights=weights))


def test_an_empty_series_gives_an_empty_one() -> None:
    assert debiased_ema([], 0.9).shape == (0,)
