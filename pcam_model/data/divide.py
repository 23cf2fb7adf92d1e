"""Groups of patches that belong together, and their division with scikit-learn's group splitters."""

from fractions import Fraction
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from pcam_model.errors import BadSplit

Codes = NDArray[np.int64]
MOST_FOLDS = 10


def groups_of(pixels: Codes, slides: Codes) -> Codes:
    """A number a group (N,): patches of one slide are one group, and slides that share an identical patch too."""
    first_slide = int(pixels.max()) + 1
    size = first_slide + int(slides.max()) + 1
    links = coo_array((np.ones(len(pixels), bool), (pixels, slides + first_slide)), shape=(size, size))
    found: Codes = connected_components(links, directed=False)[1][pixels].astype(np.int64)
    return found


def divide(labels: Codes, groups: Codes, valid: float, test: float, seed: int, of_what: str) -> NDArray[np.str_]:
    """The side of each row (N,); no group on two sides, classes in proportion. Rows come in a canonical order."""
    side = np.full(len(labels), "train", dtype="<U5")
    needed = 2 + (test > 0)
    if len(np.unique(groups)) < needed:
        raise BadSplit(
            f"there are {len(np.unique(groups))} {of_what}, and at least {needed} are needed, one a side; give more, "
            "or choose another split.kind"
        )
    if test:
        side[part(labels, groups, test, seed)] = "test"
    rest = np.flatnonzero(side == "train")
    side[rest[part(labels[rest], groups[rest], valid / (1 - test), seed)]] = "valid"
    return side


def part(labels: Codes, groups: Codes, share: float, seed: int) -> Codes:
    """Rows of whole groups that make about this share."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    commoner = (2 * np.bincount(group, labels) >= sizes).astype(np.int64)
    classes = np.bincount(commoner, minlength=2)
    if sizes.max() <= len(labels) * min(share, 1 - share) / 20 and classes.min() >= 100:
        taken = next(StratifiedShuffleSplit(1, test_size=share, random_state=seed).split(commoner, commoner))[1]
        return np.flatnonzero(np.isin(group, taken))
    return folds(labels, group, share, seed)


def folds(labels: Codes, group: Codes, share: float, seed: int) -> Codes:
    """Few or large groups: whole folds, balanced in both classes, as many as come nearest to the share."""
    least = int(np.bincount(labels, minlength=2).min())
    most = min(MOST_FOLDS, int(group.max()) + 1, least)
    if most < 2:
        raise BadSplit(
            f"one class has {least} of the {len(labels):,} patches, and every side needs both; give more of it, "
            "or choose another split.seed or split.kind"
        )
    wanted = Fraction(share).limit_denominator(most)
    wanted = min(max(wanted, Fraction(1, most)), 1 - Fraction(1, most))
    divided = StratifiedGroupKFold(wanted.denominator, shuffle=True, random_state=seed).split(labels, labels, group)
    return np.sort(np.concatenate([rows for _, rows in islice(divided, wanted.numerator)]))
