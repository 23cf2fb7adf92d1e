"""The figures of a classifier, from labels and what the network said."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from pcam_model.core.errors import ModelError, SplitError

Array = NDArray[Any]

NAMES = {
    "auc": "AUC", "average_precision": "Average precision", "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy", "sensitivity": "Sensitivity", "specificity": "Specificity",
    "ppv": "PPV", "npv": "NPV", "f1": "F1", "nll": "NLL", "brier": "Brier score", "ece": "ECE",
}  # fmt: skip
"""Every figure, in the order in which they are shown."""
BETTER_WHEN_LOW = ("nll", "brier", "ece")


class Confusion(NamedTuple):
    """How many patches fell where; "positive" is tumour."""

    tn: int
    fp: int
    fn: int
    tp: int


def tumour_probability(said: Array) -> Array:
    """Logits (N, 2) become the softmax probability (N,) of class 1; (N,) is taken as probabilities already.

    Raises:
        ModelError: a value is not finite, or a probability is outside 0..1.
    """
    said = np.asarray(said, dtype=np.float64)
    if said.ndim == 2 and said.shape[1] == 2:
        return sigmoid(margin(said))
    if said.ndim != 1 or not ((said >= 0) & (said <= 1)).all():
        raise ModelError(
            f"The predictions have shape {said.shape}, expected logits (N, 2) or probabilities (N,) in 0..1"
        )
    return said


def margin(logits: Array) -> Array:
    """Logits (N, 2) as log odds (N,) of tumour, which rank without ever saturating.

    Raises:
        ModelError: a value is not finite.
    """
    logits = np.asarray(logits, dtype=np.float64)
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise ModelError(
            f"The network's output for {len(broken):,} of {len(logits):,} patches is not finite (first: patch "
            f"{broken[0]}, {logits[broken[0]].tolist()}); the training went astray, train again with a lower rate"
        )
    return np.asarray(logits[:, 1] - logits[:, 0])


def sigmoid(odds: Array) -> Array:
    """Log odds to probability, without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -700, 700))))


def checked_labels(labels: Array, side: str = "given") -> Array:
    """Labels (N,) as int64, after making sure that both classes are there.

    Raises:
        SplitError: no patch, a label that is not 0 or 1, or one class only.
    """
    found, counts = np.unique(np.asarray(labels), return_counts=True)
    if found.tolist() != [0, 1]:
        there = ", ".join(f"{count:,} of class {label}" for label, count in zip(found, counts, strict=True)) or "none"
        raise SplitError(
            f"The {side} patches to score are {there}, expected both class 0 and class 1; give a larger or a mixed "
            "part, no figure means anything on one class"
        )
    return np.asarray(labels, dtype=np.int64)


def confusion(labels: Array, probability: Array, threshold: float = 0.5) -> Confusion:
    """Count labels (N,) against the decision "tumour where probability (N,) >= threshold"."""
    return Confusion(*(int(count) for count in cells(labels, np.asarray(probability) >= threshold).sum(axis=0)))


def cells(labels: Array, called: Array) -> Array:
    """One-hot (N, 4) of tn, fp, fn, tp, for labels (N,) and what was called tumour (N,)."""
    return np.eye(4)[2 * np.asarray(labels, dtype=np.int64) + np.asarray(called, dtype=np.int64)]


def rates(counts: Array | Confusion) -> dict[str, Array]:
    """What follows from confusion counts (..., 4) alone, each (...); a ratio over nothing is NaN."""
    tn, fp, fn, tp = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    return {
        "accuracy": ratio(tp + tn, tn + fp + fn + tp),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ratio(tp, tp + fp),
        "npv": ratio(tn, tn + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
    }


def figures(labels: Array, said: Array, threshold: float = 0.5) -> dict[str, float]:
    """The figures of a decision, and AUC, each in 0..1; all that has no interval and needs no calibration.

    `labels`: (N,) of 0 and 1; `said`: logits (N, 2) or probabilities (N,). AUC does not depend on the threshold.

    Raises:
        SplitError: one class only.
        ModelError: an output that is not finite.
    """
    labels, probability = checked_labels(labels), tumour_probability(said)
    decided = rates(confusion(labels, probability, threshold))
    return {**{name: float(value) for name, value in decided.items()}, "auc": auc(labels, said)}


def auc(labels: Array, said: Array) -> float:
    """Area under the ROC curve of logits (N, 2) or of any score (N,)."""
    said = np.asarray(said, dtype=np.float64)
    return float(roc_auc_score(labels, margin(said) if said.ndim == 2 else said))


def ratio(part: Array, whole: Array) -> Array:
    """Part / whole, NaN over nothing."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    empty = np.full(np.broadcast(part, whole).shape, np.nan)
    return np.asarray(np.divide(part, whole, out=empty, where=whole > 0))
