"""Class-conditional conformal sets: which classes a probability does not rule out, and the decision that follows."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from pcam_model.core.schema import Record

DECISIONS = ("no tumour", "tumour", "unsure")
UNSURE = DECISIONS[2]


class ConformalQuantiles(Record):
    """The quantiles of split conformal prediction, one a class; the nonconformity is 1 - probability of the class."""

    alpha: float = Field(gt=0, lt=1)
    """The share of patches of each class whose set may lack it."""
    no_tumour: float = Field(ge=0, le=1)
    """A set holds `no tumour` up to this calibrated probability of tumour."""
    tumour: float = Field(ge=0, le=1)
    """A set holds `tumour` from 1 - this calibrated probability of tumour on."""
    unit: Literal["slides", "patches"]
    """What was taken as exchangeable: slides where they are known."""
    units: tuple[NonNegativeInt, NonNegativeInt]
    """How many of them with patches of class 0 and of class 1 the quantiles were calibrated on."""

    def sets(self, probability: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the set of each patch holds class 0 and class 1, (N, 2), for calibrated probabilities (N,)."""
        return np.stack([probability <= self.no_tumour, 1 - probability <= self.tumour], axis=1)

    def decisions(self, probability: NDArray[np.float64]) -> list[str]:
        """`tumour`, `no tumour` or `unsure` of each calibrated probability (N,)."""
        return decide_sets(self.sets(np.asarray(probability, np.float64)))


def decide_sets(sets: NDArray[np.bool_]) -> list[str]:
    """The class of each set (N, 2) that holds one alone; `unsure` where it holds both or none."""
    chosen = np.where(sets[:, 0] == sets[:, 1], 2, sets[:, 1])
    return [DECISIONS[index] for index in chosen]
