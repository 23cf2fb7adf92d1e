"""Split conformal prediction, calibrated class by class over slides, and what it brings on a split."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.conformal import ConformalQuantiles
from pcam_model.evaluation.bootstrap import ResamplingUnits, ScoredPatches
from pcam_model.evaluation.report_schema import Abstention
from pcam_model.evaluation.shares import estimate_shares

Array = NDArray[Any]


def conformal_quantile(scores: Array, groups: Array, alpha: float) -> float:
    """The quantile of hierarchical conformal prediction (Lee, Barber and Willett, 2023); infinite for too few groups.

    Each of the K groups has the weight 1 / (K + 1), shared by its scores, and the group to come the rest, at infinity.
    Where each score is a group of its own this is the usual quantile, the ceil((n + 1)(1 - alpha))-th smallest score.

    Args:
        scores: nonconformity (N,).
        groups: codes (N,) of what is exchangeable.
        alpha: the share of scores of a new group that may be above the quantile.
    """
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    weight = np.cumsum(1 / ((len(sizes) + 1) * sizes[index[order]]))
    reached = np.flatnonzero(weight >= 1 - alpha - 1e-9)
    return float(scores[order[reached[0]]]) if len(reached) else math.inf


def fit_quantiles(labels: Array, probability: Array, units: ResamplingUnits, alpha: float) -> ConformalQuantiles | None:
    """The quantiles of both classes; None where a class has fewer groups than `min_groups`.

    Args:
        labels: (N,) of 0 and 1.
        probability: calibrated probability of tumour (N,).
        units: what is exchangeable; may have units of other patches than these (N,).
        alpha: the share of patches of each class whose set may lack it.
    """
    quantiles = [
        conformal_quantile(np.where(label, 1 - probability, probability)[of], units.index[of], alpha)
        for label, of in ((0, labels == 0), (1, labels == 1))
    ]
    if not np.isfinite(quantiles).all():
        return None
    return ConformalQuantiles(
        alpha=alpha,
        no_tumour=quantiles[0],
        tumour=quantiles[1],
        unit=units.kind,
        units=group_counts(labels, units),
    )


def group_counts(labels: Array, units: ResamplingUnits) -> tuple[int, int]:
    """How many units have patches of class 0, and of class 1."""
    without, with_tumour = (len(np.unique(units.index[labels == label])) for label in (0, 1))
    return without, with_tumour


def min_groups(alpha: float) -> int:
    """The smallest number of groups whose quantile is finite."""
    return math.ceil((1 - alpha) / alpha - 1e-9)


def describe_conformal(
    quantiles: ConformalQuantiles | None, labels: Array, units: ResamplingUnits, alpha: float
) -> str:
    """What the quantiles rest on, or why there are none, for people."""
    counts = group_counts(labels, units)
    if quantiles is None:
        return (
            f"the validation split has {counts[0]:,} {units.kind} without and {counts[1]:,} with tumour, and at least "
            f"{min_groups(alpha)} of each are needed for score.conformal_alpha={alpha:g}"
        )
    return f"calibrated on {counts[0]:,} {units.kind} without and {counts[1]:,} with tumour of the validation split"


def measure_abstention(scored: ScoredPatches, quantiles: ConformalQuantiles | None, seed: int) -> Abstention | None:
    """Coverage of the sets of a split and share of unsure patches, with intervals; None where it has no sets."""
    if scored.sets is None or quantiles is None:
        return None
    tumour, everything = scored.labels == 1, np.ones(len(scored.labels), bool)
    covered = np.where(tumour, scored.sets[:, 1], scored.sets[:, 0])
    unsure = scored.sets[:, 0] == scored.sets[:, 1]
    shares = {
        "coverage_no_tumour": (covered, ~tumour),
        "coverage_tumour": (covered, tumour),
        "unsure": (unsure, everything),
        "unsure_no_tumour": (unsure, ~tumour),
        "unsure_tumour": (unsure, tumour),
        "accuracy_decided": (covered, ~unsure),
    }
    return Abstention(alpha=quantiles.alpha, **estimate_shares(shares, scored.units, seed))
