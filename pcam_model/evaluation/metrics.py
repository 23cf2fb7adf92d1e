"""The figures of a classifier, from labels and what the network said."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from pcam_model.errors import BadModel, BadSplit

Array = NDArray[Any]


class Confusion(NamedTuple):
    """How many patches fell where; "positive" is tumour."""

    tn: int
    fp: int
    fn: int
    tp: int


def tumour_probability(said: Array) -> Array:
    """Logits (N, 2) become the softmax probability (N,) of class 1; (N,) is taken as probabilities already.

    Raises:
        BadModel: a value is not finite, or a probability is outside 0..1.
    """
    said = np.asarray(said, dtype=np.float64)
    if not np.isfinite(said).all():
        where = int(np.flatnonzero(~np.isfinite(said.reshape(len(said), -1)).all(axis=1))[0])
        raise BadModel(
            f"The network's output for patch {where} is {said[where].tolist()}, expected finite numbers; the training "
            "went astray, train again with a lower rate"
        )
    if said.ndim == 2 and said.shape[1] == 2:
        return np.asarray(1 / (1 + np.exp(np.clip(said[:, 0] - said[:, 1], -700, 700))))
    if said.ndim != 1 or (said.size and (said.min() < 0 or said.max() > 1)):
        raise BadModel(f"The predictions have shape {said.shape}, expected logits (N, 2) or probabilities (N,) in 0..1")
    return said


def checked_labels(labels: Array, side: str = "this side") -> Array:
    """Labels (N,) as int64, after making sure that both classes are there.

    Raises:
        BadSplit: no patch, a label that is not 0 or 1, or one class only.
    """
    found, counts = np.unique(np.asarray(labels), return_counts=True)
    if found.tolist() != [0, 1]:
        there = ", ".join(f"{count:,} of class {label}" for label, count in zip(found, counts, strict=True)) or "none"
        raise BadSplit(
            f"The {side} patches to score are {there}, expected both class 0 and class 1; give a larger or a mixed "
            "part, no figure means anything on one class"
        )
    return np.asarray(labels, dtype=np.int64)


def confusion(labels: Array, probability: Array, threshold: float = 0.5) -> Confusion:
    """Count labels (N,) against the decision "tumour where probability (N,) >= threshold"."""
    cells = np.bincount(2 * np.asarray(labels, dtype=np.int64) + (probability >= threshold), minlength=4)
    return Confusion(*(int(cell) for cell in cells))


def rates(cells: Confusion) -> dict[str, float]:
    """What follows from the confusion matrix alone; a ratio over nothing is NaN."""
    tn, fp, fn, tp = cells
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "accuracy": _ratio(tp + tn, sum(cells)),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
    }


def figures(labels: Array, said: Array, threshold: float = 0.5) -> dict[str, float]:
    """Accuracy, balanced accuracy, AUC, sensitivity and specificity, each in 0..1.

    `labels`: (N,) of 0 and 1; `said`: logits (N, 2) or probabilities (N,). AUC does not depend on the threshold.

    Raises:
        BadSplit: one class only.
        BadModel: an output that is not finite.
    """
    labels, probability = checked_labels(labels), tumour_probability(said)
    return {**rates(confusion(labels, probability, threshold)), "auc": auc(labels, said)}


def auc(labels: Array, said: Array) -> float:
    """Area under the ROC curve; from logits (N, 2) it ranks by their difference, which never saturates."""
    said = np.asarray(said, dtype=np.float64)
    return float(roc_auc_score(labels, said[:, 1] - said[:, 0] if said.ndim == 2 else said))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
