"""Features of a slide's map of probabilities, for a regression over slides."""

import math

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import require_package
from pcam_model.slides.probability_map import ProbabilityMap
from pcam_model.slides.scores import SlideScores, cell_mm2

FEATURES = (
    "maximum", "top_mean", "mean", "tumour_fraction", "log_tumour_mm2", "log_largest_mm2", "largest_length_mm",
    "largest_mean",
)  # fmt: skip
"""Of the probabilities, and of the largest group of neighbouring cells that are tumour."""
MIN_MM2 = 1e-3  # about a cell at stride 32; the area of no tumour has a logarithm too


def heatmap_features(
    probabilities: ProbabilityMap, scores: SlideScores, threshold: float, mpp: float
) -> NDArray[np.float64]:
    """The values of `FEATURES`, (8,).

    Args:
        probabilities: of the slide.
        scores: of the slide.
        threshold: the probability from which a cell is tumour.
        mpp: microns per pixel of level 0.
    """
    area_mm2, length_mm, mean = _largest_group(probabilities, threshold, mpp)
    return np.array([
        scores.maximum,
        scores.top_mean,
        float(probabilities.predicted.mean(dtype=np.float64)),
        scores.tumour_fraction,
        math.log(scores.tumour_mm2 + MIN_MM2),
        math.log(area_mm2 + MIN_MM2),
        length_mm,
        mean,
    ])  # fmt: skip


def _largest_group(probabilities: ProbabilityMap, threshold: float, mpp: float) -> tuple[float, float, float]:
    """Area in mm², longest axis in mm and mean probability of the largest group of tumour cells; zeros without one."""
    with require_package("features of heatmaps", extra="slides"):
        from skimage import measure
    labels = measure.label(probabilities.is_tumour(threshold), connectivity=2)
    sizes = np.bincount(labels.ravel())[1:]
    if not len(sizes):
        return 0.0, 0.0, 0.0
    group = labels == 1 + int(sizes.argmax())
    (region,) = measure.regionprops(group.astype(np.uint8))
    cell = cell_mm2(probabilities, mpp)
    return (
        float(group.sum()) * cell,
        float(region.axis_major_length) * math.sqrt(cell),
        float(probabilities.values[group].mean(dtype=np.float64)),
    )
