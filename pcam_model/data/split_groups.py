"""Groups of patches that belong together, and their division with scikit-learn's group splitters."""

import warnings
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

from pcam_model.core.errors import SplitError

Codes = NDArray[np.int64]
MOST_FOLDS = 10
# scikit-learn looks at every fold for every group: above this many, groups are drawn as if each were one patch.
MANY_GROUPS = 5000


def groups_of(pixels: Codes, slides: Codes) -> Codes:
    """A number a group (N,): patches of one slide are one group, and slides that share an identical patch too."""
    first_slide = int(pixels.max()) + 1
    size = first_slide + int(slides.max()) + 1
    links = coo_array((np.ones(len(pixels), bool), (pixels, slides + first_slide)), shape=(size, size))
    found: Codes = connected_components(links, directed=False)[1][pixels].astype(np.int64)
    return found


def enough_groups(groups: Codes, required: int, named: str) -> None:
    """Raise SplitError where there are too few groups for every side, or fold, to have one."""
    found = len(np.unique(groups))
    if found < required:
        raise SplitError(
            f"there are {found} {named}, and at least {required} are needed, one a side; give more, or choose another "
            "split.kind"
        )


def part(labels: Codes, groups: Codes, share: float, seed: int, left: int = 1) -> Codes:
    """Rows of whole groups that make about this share, classes in proportion. Rows come in a canonical order.

    `left`: so many groups shall remain, where they can.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    commoner = commoner_label(labels, group)
    if sizes.max() <= len(labels) * min(share, 1 - share) / 20 and np.bincount(commoner, minlength=2).min() >= 100:
        taken = next(StratifiedShuffleSplit(1, test_size=share, random_state=seed).split(commoner, commoner))[1]
        return np.flatnonzero(np.isin(group, taken))
    most = max(min(MOST_FOLDS, len(sizes), int(np.bincount(commoner).max())), 2)
    wanted = min(max(Fraction(share).limit_denominator(most), Fraction(1, most)), 1 - Fraction(1, most))
    folds = fold_rows(labels, groups, wanted.denominator, seed)
    beside = len(sizes) - np.array([len(np.unique(groups[rows])) for rows in folds])
    faults = [(beside[i] < left) + (not leaves_both_classes(labels, rows)) for i, rows in enumerate(folds)]
    folds = [folds[i] for i in np.argsort(faults, kind="stable")]
    return np.sort(np.concatenate(folds[: wanted.numerator]))


def fold_rows(labels: Codes, groups: Codes, count: int, seed: int) -> list[Codes]:
    """The rows of each of `count` folds of whole groups, classes in proportion."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    as_patches = sizes.max() == 1 or len(sizes) > MANY_GROUPS
    classes = commoner_label(labels, group) if as_patches else labels
    if count > np.bincount(classes).max():
        raise SplitError(
            f"{len(labels):,} patches in {len(sizes):,} groups cannot make {count} folds; ask for fewer split.folds"
        )
    with warnings.catch_warnings():
        # A class with fewer patches than folds: whoever gets none of it is refused later, in a sentence of ours.
        warnings.simplefilter("ignore", UserWarning)
        if as_patches:
            drawn = StratifiedKFold(count, shuffle=True, random_state=seed).split(classes, classes)
            return [np.flatnonzero(np.isin(group, taken)) for _, taken in drawn]
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        return [rows for _, rows in splitter.split(labels, labels, group)]


def commoner_label(labels: Codes, group: Codes) -> Codes:
    """The label of most patches of each group."""
    found: Codes = (2 * np.bincount(group, labels) >= np.bincount(group)).astype(np.int64)
    return found


def leaves_both_classes(labels: Codes, rows: Codes) -> bool:
    """Whether these rows, and those left without them, have both classes."""
    inside, total = np.bincount(labels[rows], minlength=2), np.bincount(labels, minlength=2)
    return bool(inside.all() and (total - inside).all())
