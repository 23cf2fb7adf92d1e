"""Groups of patches that belong together, and their division with scikit-learn's group splitters."""

import warnings
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

from pcam_model.core.errors import SplitError

Codes = NDArray[np.int64]
MAX_FOLDS = 10
# scikit-learn tries every fold for every group: above this many, groups are drawn as if each were one patch.
MANY_GROUPS = 5000
MAX_SIZE_RATIO = 2
# Groups are drawn one by one, instead of in folds, where the smaller part of a division is at least this many times the
# largest group, and there are enough groups of each class.
GROUP_SIZE_RATIO, MIN_GROUPS_PER_CLASS = 20, 100


def connected_groups(pixels: Codes, slides: Codes) -> Codes:
    """Group codes (N,): patches of one slide are one group, and slides that share an identical patch are too."""
    first_slide = int(pixels.max()) + 1
    size = first_slide + int(slides.max()) + 1
    links = coo_array((np.ones(len(pixels), bool), (pixels, slides + first_slide)), shape=(size, size))
    codes: Codes = connected_components(links, directed=False)[1][pixels].astype(np.int64)
    return codes


def require_groups(groups: Codes, required: int, noun: str) -> None:
    """Raise SplitError where there are too few groups for every split, or fold, to have one."""
    count = len(np.unique(groups))
    if count < required:
        raise SplitError(
            f"there are {count} {noun}, and at least {required} are needed, one a split; give more, or choose another "
            "split.kind"
        )


def require_proportion(labels: Codes, splits: NDArray[np.str_], fractions: Mapping[str, float]) -> None:
    """Raise SplitError where a split has less than half, or more than twice, the share of a class that it shall have.

    Args:
        labels: (N,), 0 or 1.
        splits: the name (N,) of each row's split.
        fractions: the share of the rows that each split shall have.
    """
    for name, fraction in fractions.items():
        for label in (0, 1):
            share = float((splits[labels == label] == name).mean())
            if not fraction / MAX_SIZE_RATIO <= share <= fraction * MAX_SIZE_RATIO:
                raise SplitError(
                    f"the clusters are too uneven: {name} would have {share:.1%} of the patches of class {label}, and "
                    f"{fraction:.1%} are configured; choose split.kind=random, or slide with a slide map, or another "
                    "split.seed"
                )


def sample_groups(labels: Codes, groups: Codes, fraction: float, seed: int, min_groups_left: int = 1) -> Codes:
    """Row indices, ascending, of whole groups that hold about `fraction` of the rows, classes in proportion.

    Args:
        labels: (N,), 0 or 1, in an order that does not depend on the source's.
        groups: group codes (N,).
        fraction: share of the rows to sample, in 0..1.
        seed: of the random numbers.
        min_groups_left: how many groups are not sampled, where that is possible.
    """
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    group_labels = majority_labels(labels, codes)
    are_small = sizes.max() <= len(labels) * min(fraction, 1 - fraction) / GROUP_SIZE_RATIO
    if are_small and np.bincount(group_labels, minlength=2).min() >= MIN_GROUPS_PER_CLASS:
        shuffle = StratifiedShuffleSplit(1, test_size=fraction, random_state=seed)
        _, sampled = next(shuffle.split(group_labels, group_labels))
        return np.flatnonzero(np.isin(codes, sampled))
    max_folds = max(min(MAX_FOLDS, len(sizes), int(np.bincount(group_labels).max())), 2)
    ratio = _nearest_ratio(fraction, max_folds)
    folds = make_folds(labels, groups, ratio.denominator, seed)
    return np.sort(np.concatenate(_best_first(folds, labels, codes, min_groups_left)[: ratio.numerator]))


def _nearest_ratio(fraction: float, max_denominator: int) -> Fraction:
    """The ratio nearest to `fraction` that is neither 0 nor 1."""
    lowest = Fraction(1, max_denominator)
    return min(max(Fraction(fraction).limit_denominator(max_denominator), lowest), 1 - lowest)


def _best_first(folds: list[Codes], labels: Codes, codes: Codes, min_groups_left: int) -> list[Codes]:
    """The folds, first those that leave enough groups and have both classes, as the rest has."""
    total = len(np.unique(codes))
    faults = [
        (total - len(np.unique(codes[rows])) < min_groups_left) + (not leaves_both_classes(labels, rows))
        for rows in folds
    ]
    return [folds[i] for i in np.argsort(faults, kind="stable")]


def make_folds(labels: Codes, groups: Codes, count: int, seed: int) -> list[Codes]:
    """Row indices of each of `count` folds of whole groups, classes in proportion."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    by_group = sizes.max() == 1 or len(sizes) > MANY_GROUPS
    classes = majority_labels(labels, codes) if by_group else labels
    if count > np.bincount(classes).max():
        raise SplitError(
            f"{len(labels):,} patches in {len(sizes):,} groups cannot make {count} folds; ask for fewer split.folds"
        )
    with warnings.catch_warnings():
        # A class with fewer patches than folds: a split without it is refused later, in a sentence of our own.
        warnings.simplefilter("ignore", UserWarning)
        if by_group:
            folds = StratifiedKFold(count, shuffle=True, random_state=seed).split(classes, classes)
            return [np.flatnonzero(np.isin(codes, fold)) for _, fold in folds]
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        return [rows for _, rows in splitter.split(labels, labels, codes)]


def majority_labels(labels: Codes, codes: Codes) -> Codes:
    """The label of most patches of each group; 1 where both are as many."""
    majority: Codes = (2 * np.bincount(codes, labels) >= np.bincount(codes)).astype(np.int64)
    return majority


def leaves_both_classes(labels: Codes, rows: Codes) -> bool:
    """Whether these rows have both classes, and the rest too."""
    inside, total = np.bincount(labels[rows], minlength=2), np.bincount(labels, minlength=2)
    return bool(inside.all() and (total - inside).all())
