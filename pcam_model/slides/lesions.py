"""Lesions and their detection as Camelyon16 counts them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import require_package
from pcam_model.slides.froc import SlideHits
from pcam_model.slides.geometry import Grid
from pcam_model.slides.probability_map import ProbabilityMap
from pcam_model.slides.tiling import Mask

LESION_MPP = 7.776
"""Microns per pixel of the mask on which lesions are counted: level 5 of Camelyon's slides."""
GROW_UM = 75.0
"""Tumour nearer than this to tumour is one lesion."""
CELLS_UM = 200.0
"""Lesions of a smaller diameter are isolated tumour cells: a detection in them is neither right nor wrong."""
SUPPRESSION_UM = 746.0
"""Side of the square around a detection within which there is no second one: 48 pixels of Camelyon's level 6."""
MIN_PROBABILITY = 0.5
"""Above which a cell can be a detection."""

Labels = NDArray[np.int64]


class Lesions(NamedTuple):
    """The lesions of a slide."""

    labels: Labels
    """(H, W): the number of the lesion of each pixel, from 1; 0: none."""
    isolated: tuple[int, ...]
    """The numbers of those that are isolated tumour cells."""
    grid: Grid


class Detections(NamedTuple):
    """Local maxima of a map."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    """Descending."""


def find_lesions(mask: Mask, grid: Grid, mpp: float) -> Lesions:
    """The lesions of a mask of tumour, bool (H, W).

    Args:
        mask: of the slide.
        grid: of its pixels.
        mpp: microns per pixel of level 0.
    """
    pixel_um = grid.downsample * mpp
    labels = label_lesions(mask, GROW_UM / (2 * pixel_um))
    return Lesions(labels, isolated_cells(labels, (CELLS_UM + GROW_UM) / pixel_um), grid)


def label_lesions(mask: Mask, distance: float) -> Labels:
    """Number the groups of pixels that are nearer than `distance` pixels to a mask, their holes filled."""
    with require_package("counting lesions", extra="slides"):
        from scipy import ndimage
        from skimage import measure
    if not mask.any():
        return np.zeros(mask.shape, np.int64)
    grown = ndimage.distance_transform_edt(~mask) < distance if distance > 0 else mask
    return np.asarray(measure.label(ndimage.binary_fill_holes(grown | mask), connectivity=2), np.int64)


def isolated_cells(labels: Labels, diameter: float) -> tuple[int, ...]:
    """The numbers of the lesions whose longest axis is below a diameter in pixels."""
    with require_package("counting lesions", extra="slides"):
        from skimage import measure
    return tuple(each.label for each in measure.regionprops(labels) if each.axis_major_length < diameter)


def find_detections(probabilities: ProbabilityMap, mpp: float) -> Detections:
    """The cells above 0.5 that are the largest in a square of 746 microns, by non-maximum suppression.

    Args:
        probabilities: of the slide.
        mpp: microns per pixel of level 0.
    """
    tiling = probabilities.tiling
    cell_um = tiling.stride * tiling.grid.downsample * mpp
    return suppress(probabilities.values, max(round(SUPPRESSION_UM / cell_um), 1))


def suppress(values: NDArray[np.float32], box: int) -> Detections:
    """Greedy non-maximum suppression of a map (H, W) with NaN where there is none; `box`: side in cells."""
    rows, columns = np.nonzero(values > MIN_PROBABILITY)  # NaN is not
    found = values[rows, columns]
    free = np.ones(values.shape, bool)
    below, above = box // 2, box - box // 2
    kept = []
    for number in np.argsort(-found, kind="stable").tolist():
        row, column = int(rows[number]), int(columns[number])
        if free[row, column]:
            kept.append(number)
            free[max(row - below, 0) : row + above, max(column - below, 0) : column + above] = False
    return Detections(rows[kept], columns[kept], found[kept])


def match_detections(detections: Detections, probabilities: ProbabilityMap, lesions: Lesions) -> SlideHits:
    """Which detections of a map are of a lesion: where the cell's centre lies in it."""
    tiling = probabilities.tiling
    start = tiling.centre(0, 0).on(lesions.grid)
    step = tiling.stride * tiling.grid.downsample / lesions.grid.downsample
    height, width = lesions.labels.shape
    y = np.minimum((start.y + detections.rows * step).astype(np.int64), height - 1)
    x = np.minimum((start.x + detections.columns * step).astype(np.int64), width - 1)
    return count_hits(detections.probabilities, lesions.labels[y, x], int(lesions.labels.max()), lesions.isolated)


def count_hits(
    probabilities: NDArray[np.float32], hits: Labels, lesions: int, isolated: tuple[int, ...] = ()
) -> SlideHits:
    """What detections (N,) find: `hits`, the number of the lesion of each (N,), or 0.

    Args:
        probabilities: of the detections.
        hits: as above.
        lesions: their number, isolated tumour cells included.
        isolated: numbers of those that are not counted.
    """
    best = np.zeros(lesions + 1, np.float32)
    np.maximum.at(best, hits, probabilities.astype(np.float32))
    best[list(isolated)] = 0
    return SlideHits(probabilities[hits == 0].astype(np.float32), best[1:], lesions - len(isolated))
