"""Platt scaling: how a network's log odds become calibrated ones."""

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pcam_model.core.schema import Record


class PlattScaling(Record):
    """Calibrated log odds are `log odds / temperature + bias`."""

    temperature: float = Field(1.0, gt=0, le=1000)
    """Log odds are divided by it."""
    bias: float = Field(0.0, ge=-20, le=20)
    """Added after that; not 0 where probabilities are for another share of tumour than that of the validation split."""

    def log_odds(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated log odds (N,), of log odds (N,)."""
        return np.asarray(log_odds / self.temperature + self.bias, np.float64)

    def probability(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities (N,) of tumour, of log odds (N,)."""
        return np.asarray(np.exp(-np.logaddexp(0, -self.log_odds(log_odds))), np.float64)


def prevalence_bias(prevalence: float, before: float) -> float:
    """The bias that corrects log odds for a share of tumour of `prevalence`, where it was `before`; both in 0..1."""
    return math.log(prevalence / (1 - prevalence)) - math.log(before / (1 - before))
