"""Two-sample tests with permutations: the AUC of a domain classifier, and the Kolmogorov-Smirnov distance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata

Array = NDArray[Any]
FOLDS = 5
RIDGE = 3.0  # added to a kernel matrix of mean diagonal 1
PERMUTATIONS = 399


@dataclass(frozen=True)
class TwoSampleTest:
    """A statistic with the p-value of its permutation test; `scores` (N,) is the classifier's, where there is one."""

    statistic: float
    p: float
    scores: Array | None = None


def permuted_labels(labels: Array, units: Array, count: int, rng: np.random.Generator) -> Array:
    """The labels (N,), 1 for new, and `count` permutations of them between units, (N, 1 + count).

    Args:
        labels: the same for all patches of a unit.
        units: codes (N,), from 0, of what is exchangeable: slides, or each patch for itself.
        count: number of permutations.
        rng: source of the random numbers.
    """
    of_unit = np.zeros(units.max() + 1, labels.dtype)
    of_unit[units] = labels
    columns = np.stack([of_unit, *(rng.permutation(of_unit) for _ in range(count))], axis=1)
    permuted: Array = columns[units]
    return permuted


def classifier_test(features: Array, permuted: Array, units: Array, rng: np.random.Generator) -> TwoSampleTest:
    """AUC of a ridge classifier of reference against new, out of fold, with its permutation test.

    Out-of-fold scores of ridge regression are linear in the labels, so all permutations are one product of matrices.

    Args:
        features: float (N, D).
        permuted: labels and their permutations (N, 1 + P); see `permuted_labels`.
        units: codes (N,); a fold holds whole units.
        rng: draws the folds.
    """
    scores = _out_of_fold(_kernel(features), units, rng) @ permuted
    areas = auc_of_ranks(rankdata(scores, axis=0), permuted)
    return TwoSampleTest(float(areas[0]), _p_value(areas), scores[:, 0])


def distance_test(values: Array, permuted: Array) -> TwoSampleTest:
    """The Kolmogorov-Smirnov distance of values (N,), reference against new, with its permutation test."""
    order = np.argsort(values, kind="stable")
    new = permuted[order].astype(np.float64)
    apart = np.cumsum(new, axis=0) / new.sum(axis=0) - np.cumsum(1 - new, axis=0) / (1 - new).sum(axis=0)
    last_of_ties = np.append(np.diff(values[order]) > 0, True)
    distances = np.abs(apart[last_of_ties]).max(axis=0)
    return TwoSampleTest(float(distances[0]), _p_value(distances))


def auc_of_ranks(ranks: Array, labels: Array) -> Array:
    """Areas under the ROC curve (P,) of ranks (N, P) and labels (N, P) of 0 and 1."""
    new = labels.sum(axis=0)
    areas: Array = ((ranks * labels).sum(axis=0) - new * (new + 1) / 2) / (new * (len(labels) - new))
    return areas


def _p_value(statistics: Array) -> float:
    """The share of the permutations, the observed one among them, that is at least as extreme as the first."""
    return float(np.mean(statistics >= statistics[0] - 1e-12))


def _kernel(features: Array) -> Array:
    """The linear kernel (N, N) of standardised features (N, D), with a mean diagonal of 1."""
    standardised = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    kernel: Array = standardised @ standardised.T
    return kernel / max(float(np.trace(kernel)) / len(kernel), 1e-12)


def _out_of_fold(kernel: Array, units: Array, rng: np.random.Generator) -> Array:
    """The matrix (N, N) from labels to the scores that ridge regression, trained on the other folds, gives."""
    fold = rng.permutation(np.arange(units.max() + 1) % FOLDS)[units]
    matrix = np.zeros_like(kernel)
    for held_out in (fold == k for k in range(FOLDS) if (fold == k).any() and (fold != k).any()):
        rest = ~held_out
        inner = kernel[np.ix_(rest, rest)] + RIDGE * np.eye(int(rest.sum()))
        weights = cho_solve(cho_factor(inner), kernel[np.ix_(rest, held_out)]).T
        centred = weights - weights.mean(axis=1, keepdims=True)  # labels less their mean
        matrix[np.ix_(held_out, rest)] = centred + 1 / rest.sum()
    return matrix
