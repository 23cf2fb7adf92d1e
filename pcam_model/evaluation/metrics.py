"""Metrics of a binary classifier, from labels and outputs of the network."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from pcam_model.core.errors import ModelError, SplitError

Array = NDArray[Any]

LOWER_IS_BETTER = ("nll", "brier", "ece")


class Confusion(NamedTuple):
    """Numbers of patches; "positive" is tumour."""

    tn: int
    fp: int
    fn: int
    tp: int


def tumour_probability(outputs: Array) -> Array:
    """Softmax probability (N,) of class 1 of logits (N, 2); probabilities (N,) are returned as they are.

    Raises:
        ModelError: a value is not finite, or a probability is outside 0..1.
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    if outputs.ndim == 2 and outputs.shape[1] == 2:
        return sigmoid(log_odds(outputs))
    if outputs.ndim != 1 or not ((outputs >= 0) & (outputs <= 1)).all():
        raise ModelError(
            f"The predictions have shape {outputs.shape}, expected logits (N, 2) or probabilities (N,) in 0..1"
        )
    return outputs


def log_odds(logits: Array) -> Array:
    """Log odds (N,) of tumour of logits (N, 2); unlike probabilities they rank without saturating.

    Raises:
        ModelError: a value is not finite.
    """
    logits = np.asarray(logits, dtype=np.float64)
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise ModelError(
            f"The network's output for {len(broken):,} of {len(logits):,} patches is not finite (first: patch "
            f"{broken[0]}, {logits[broken[0]].tolist()}); its training diverged, train again with a lower lr"
        )
    return np.asarray(logits[:, 1] - logits[:, 0])


def sigmoid(log_odds: Array) -> Array:
    """Probability of log odds, without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -700, 700))))


def validate_labels(labels: Array, split: str = "given") -> Array:
    """Labels (N,) as int64, after a check that both classes are there.

    Raises:
        SplitError: no patch, a label that is not 0 or 1, or one class only.
    """
    classes, counts = np.unique(np.asarray(labels), return_counts=True)
    if classes.tolist() != [0, 1]:
        present = ", ".join(f"{count:,} of class {label}" for label, count in zip(classes, counts, strict=True))
        raise SplitError(
            f"The {split} patches to score are {present or 'none'}, expected both class 0 and class 1; give a larger "
            "or a mixed split, no figure means anything on one class"
        )
    return np.asarray(labels, dtype=np.int64)


def confusion(labels: Array, probability: Array, threshold: float = 0.5) -> Confusion:
    """Confusion counts of labels (N,) and the prediction "tumour where probability (N,) >= threshold"."""
    return confusion_counts(labels, np.asarray(probability) >= threshold)


def confusion_counts(labels: Array, predicted: Array) -> Confusion:
    """Confusion counts of labels (N,) and predicted classes (N,)."""
    return Confusion(*(int(count) for count in confusion_one_hot(labels, predicted).sum(axis=0)))


def confusion_one_hot(labels: Array, predicted: Array) -> Array:
    """One-hot (N, 4) of tn, fp, fn, tp, for labels (N,) and predicted classes (N,)."""
    return np.eye(4)[2 * np.asarray(labels, dtype=np.int64) + np.asarray(predicted, dtype=np.int64)]


def confusion_metrics(counts: Array | Confusion) -> dict[str, Array]:
    """Accuracy to F1, each (...), of confusion counts (..., 4); a ratio over nothing is NaN."""
    tn, fp, fn, tp = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    sensitivity, specificity = safe_ratio(tp, tp + fn), safe_ratio(tn, tn + fp)
    return {
        "accuracy": safe_ratio(tp + tn, tn + fp + fn + tp),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": safe_ratio(tp, tp + fp),
        "npv": safe_ratio(tn, tn + fn),
        "f1": safe_ratio(2 * tp, 2 * tp + fp + fn),
    }


def threshold_metrics(labels: Array, outputs: Array, threshold: float = 0.5) -> dict[str, float]:
    """The metrics of a threshold, and AUC, each in 0..1, without intervals and without calibration.

    `labels`: (N,) of 0 and 1; `outputs`: logits (N, 2) or probabilities (N,). AUC does not depend on the threshold.

    Raises:
        SplitError: one class only.
        ModelError: an output is not finite.
    """
    labels, probability = validate_labels(labels), tumour_probability(outputs)
    metrics = confusion_metrics(confusion(labels, probability, threshold))
    return {**{name: float(value) for name, value in metrics.items()}, "auc": auc(labels, outputs)}


def auc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve of logits (N, 2) or of any score (N,)."""
    scores = np.asarray(scores, dtype=np.float64)
    return float(roc_auc_score(labels, log_odds(scores) if scores.ndim == 2 else scores))


def safe_ratio(numerator: Array, denominator: Array) -> Array:
    """The quotient, NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    nan = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=nan, where=denominator > 0))
