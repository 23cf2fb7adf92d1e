"""Operating points: the probability from which a patch is called tumour."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from pcam_model.core.errors import ConfigError

Array = NDArray[Any]
RULES = ("youden", "sensitivity95", "specificity95")


def fixed_threshold(point: str) -> float | None:
    """The threshold of an operating point that is a number; None of a rule, which chooses it on data.

    Raises:
        ConfigError: neither a number between 0 and 1 nor a known rule.
    """
    if point in RULES:
        return None
    try:
        threshold = float(point)
    except ValueError:
        threshold = float("nan")
    if not 0 < threshold < 1:
        raise ConfigError(
            f"score.operating_point is {point!r}, expected {', '.join(RULES)} or a probability between 0 and 1; "
            "0.5 is the default"
        )
    return threshold


def choose_threshold(point: str, labels: Array, probability: Array) -> float:
    """The threshold of an operating point: its number, or one of the probabilities (N,), chosen with labels (N,).

    Youden: the largest sensitivity + specificity - 1. `sensitivity95`: the highest threshold with a sensitivity of at
    least 0.95. `specificity95`: the lowest threshold with a specificity of at least 0.95.
    """
    threshold = fixed_threshold(point)
    if threshold is not None:
        return threshold
    fpr, tpr, thresholds = roc_curve(labels, probability, drop_intermediate=False)
    if point == "youden":
        index = int(np.argmax(tpr - fpr))
    elif point == "sensitivity95":
        index = int(np.argmax(tpr >= 0.95))
    else:
        index = int(np.flatnonzero(1 - fpr >= 0.95)[-1])
    return float(min(thresholds[index], 1.0))
