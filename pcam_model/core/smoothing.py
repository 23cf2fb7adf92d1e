"""The debiased exponential moving average of a series."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def debiased_ema(values: Sequence[float] | NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Exponential moving average with decay `beta`, divided by 1 - beta^t as in Adam; as long as `values`."""
    smoothed, mean = np.empty(len(values)), 0.0
    for step, value in enumerate(values):
        mean = beta * mean + (1 - beta) * float(value)
        smoothed[step] = mean / (1 - beta ** (step + 1))
    return smoothed
