"""Shares of patches, as of those whose prediction is right, with 95 % intervals over slides or patches."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.estimate import Estimate
from pcam_model.evaluation.bootstrap import RESAMPLES, ResamplingUnits, bootstrap_weights, jackknife_weights
from pcam_model.evaluation.intervals import bca_interval, exact_interval
from pcam_model.evaluation.metrics import safe_ratio

Array = NDArray[Any]


def estimate_shares(
    shares: Mapping[str, tuple[Array, Array]], units: ResamplingUnits, seed: int, resamples: int = RESAMPLES
) -> dict[str, Estimate | None]:
    """The share of `hits` among `members` of each name, with its BCa interval; None where there are no members.

    Args:
        shares: name to hits and members, bool (N,) each.
        units: what is resampled.
        seed: of the resampling.
        resamples: number of bootstrap resamples.
    """
    columns = [column for hits, members in shares.values() for column in (hits & members, members)]
    sums = np.stack([np.bincount(units.index, column, minlength=units.count) for column in columns], axis=1)

    def ratios(weights: Iterable[Array]) -> Array:
        totals = np.concatenate([chunk @ sums for chunk in weights])
        return safe_ratio(totals[:, ::2], totals[:, 1::2])

    (values,) = ratios([np.ones((1, units.count))])
    resampled, jackknifed = ratios(bootstrap_weights(units, resamples, seed)), ratios(jackknife_weights(units, seed))
    estimates: dict[str, Estimate | None] = {}
    for column, (name, (_, members)) in enumerate(shares.items()):
        value, count = float(values[column]), len(np.unique(units.index[members]))
        if not count:
            estimates[name] = None
            continue
        low, high = bca_interval(value, resampled[:, column], jackknifed[:, column], units.count)
        if low == high and value in (0.0, 1.0):
            low, high = exact_interval(value, count)
        estimates[name] = Estimate(value=value, low=low, high=high)
    return estimates
