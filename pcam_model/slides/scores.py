"""Scores of a slide from the probabilities of its patches."""

import numpy as np

from pcam_model.core.schema import Record
from pcam_model.slides.geometry import LEVEL_0
from pcam_model.slides.probability_map import ProbabilityMap

TOP_K = 10


class SlideScores(Record):
    """Scores of a slide."""

    maximum: float
    """The largest probability."""
    top_mean: float
    """Mean of the 10 largest probabilities, or of all where there are fewer."""
    tumour_mm2: float
    """Area of the cells at or above the threshold."""
    tumour_fraction: float
    """Share of the predicted cells that are at or above the threshold."""


def slide_scores(probabilities: ProbabilityMap, threshold: float, mpp: float) -> SlideScores:
    """The scores of a slide with at least one predicted patch.

    Args:
        probabilities: of its patches.
        threshold: the probability from which a patch is called tumour.
        mpp: microns per pixel of level 0.
    """
    values = probabilities.predicted
    top = np.partition(values, -min(TOP_K, len(values)))[-TOP_K:]
    tumour = int((values >= threshold).sum())
    return SlideScores(
        maximum=float(values.max()),
        top_mean=float(top.mean(dtype=np.float64)),
        tumour_mm2=tumour * cell_mm2(probabilities, mpp),
        tumour_fraction=tumour / len(values),
    )


def cell_mm2(probabilities: ProbabilityMap, mpp: float) -> float:
    """Area of one cell of the map in mm²; `mpp`: microns per pixel of level 0."""
    return probabilities.tiling.cell_size.on(LEVEL_0).area * mpp**2 / 1e6
