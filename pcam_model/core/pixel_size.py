"""The physical size of pixels, in microns per pixel (mpp)."""

from typing import NamedTuple

PCAM_MPP = 0.972
"""Of PCam and of Kaggle's set: Camelyon16's slides at 10x."""
MAX_MISMATCH = 0.2
"""A larger relative difference of two pixel sizes is reported: cells look larger or smaller to the model."""


class PixelSize(NamedTuple):
    """Microns per pixel of patches, and whether that is an assumption."""

    mpp: float
    assumed: bool


def relative_difference(mpp: float, expected: float) -> float:
    """Relative difference of two pixel sizes, the same in both directions: 0 for equal ones, 1 for twice the size."""
    return max(mpp, expected) / min(mpp, expected) - 1
