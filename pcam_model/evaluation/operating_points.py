"""Operating points: the probability from which a patch is called tumour."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from pcam_model.core.errors import ConfigError

Array = NDArray[Any]
CHOSEN = ("youden", "sensitivity95", "specificity95")


def fixed(point: str) -> float | None:
    """The threshold when the operating point is a number, None when it has to be chosen from data.

    Raises:
        ConfigError: neither a number between 0 and 1 nor a rule that we know.
    """
    if point in CHOSEN:
        return None
    try:
        threshold = float(point)
    except ValueError:
        threshold = float("nan")
    if not 0 < threshold < 1:
        raise ConfigError(
            f"score.operating_point is {point!r}, expected {', '.join(CHOSEN)} or a probability between 0 and 1; "
            "0.5 is the default"
        )
    return threshold


def choose(point: str, labels: Array, probability: Array) -> float:
    """The threshold of an operating point on labels (N,) and probabilities (N,): always one of the latter, or fixed.

    Youden: the largest sensitivity + specificity - 1. `sensitivity95`: the highest threshold with a sensitivity of at
    least 0.95. `specificity95`: the lowest threshold with a specificity of at least 0.95.
    """
    threshold = fixed(point)
    if threshold is not None:
        return threshold
    false_alarms, sensitivity, thresholds = roc_curve(labels, probability, drop_intermediate=False)
    if point == "youden":
        at = int(np.argmax(sensitivity - false_alarms))
    elif point == "sensitivity95":
        at = int(np.argmax(sensitivity >= 0.95))
    else:
        at = int(np.flatnonzero(1 - false_alarms >= 0.95)[-1])
    return float(min(thresholds[at], 1.0))
