"""Tissue on the overview of a slide: by saturation, without glass, borders and pen."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import require_package
from pcam_model.data.image import CENTRE_SIZE, PATCH_SIZE
from pcam_model.slides.geometry import Grid
from pcam_model.slides.reader import Pixels
from pcam_model.slides.tiling import Indices, Mask, Tiling

SATURATION_RANGE = (0.04, 0.15)
"""Otsu's threshold is kept within it: a slide full of tissue has no glass to be told from, an empty one no tissue."""
MIN_AREA_MM2 = 0.01
Channel = NDArray[np.floating[Any]]


def tissue_mask(pixels: Pixels, mpp: float) -> Mask:
    """Where an overview shows tissue.

    Args:
        pixels: the overview, uint8 (H, W, 3).
        mpp: its microns per pixel.

    Returns:
        bool (H, W). Pieces below 0.01 mm² are left out, holes of that size are filled.
    """
    with require_package("the tissue mask", extra="slides"):
        from scipy import ndimage
        from skimage.filters import threshold_otsu
    red, green, blue = (pixels[..., channel].astype(np.float32) for channel in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    saturation = (value - np.minimum(np.minimum(red, green), blue)) / np.maximum(value, 1)
    candidates = ~(is_black(value, saturation) | is_ink(red, green, blue, value, saturation))
    inside = saturation[candidates]
    if not inside.size:
        return candidates
    threshold = np.clip(threshold_otsu(inside) if np.ptp(inside) else 0, *SATURATION_RANGE)
    mask = ndimage.binary_closing(np.pad(candidates & (saturation > threshold), 2), iterations=2)[2:-2, 2:-2]
    min_pixels = MIN_AREA_MM2 * 1e6 / mpp**2
    return _without_small_parts(~_without_small_parts(~(mask & candidates), min_pixels), min_pixels)


def is_black(value: Channel, saturation: Channel) -> Mask:
    """Where there are black borders, black pen or dirt: dark, and without colour. `value`: 0..255."""
    return np.asarray((value < 50) | ((value < 110) & (saturation < 0.25)))


def is_ink(red: Channel, green: Channel, blue: Channel, value: Channel, saturation: Channel) -> Mask:
    """Where there is green, blue or red pen; haematoxylin and eosin leave green the weakest channel. Values 0..255."""
    green_ink = (green >= red) & (saturation > 0.1)
    blue_ink = (blue == value) & (saturation > 0.6) & (red - green < 0.15 * (blue - green))
    red_ink = (red == value) & (saturation > 0.7) & (value > 150) & (np.abs(blue - green) < 0.15 * (red - green))
    return np.asarray(green_ink | blue_ink | red_ink)


def _without_small_parts(mask: Mask, min_pixels: float) -> Mask:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    large = sizes >= min_pixels
    large[0] = False
    return np.asarray(large[labels])


class TissueCells:
    """A `Selection` of the patches whose centre holds any tissue."""

    def __init__(self, mask: Mask, grid: Grid, top: int = 0, left: int = 0) -> None:
        """`mask`: bool (H, W) on the pixels of `grid`, from row `top` and column `left` on."""
        self._grid = grid
        self._shape = mask.shape
        self._top, self._left = top, left
        self._sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
        np.cumsum(mask, 0, out=self._sums[1:, 1:])
        np.cumsum(self._sums[1:, 1:], 1, out=self._sums[1:, 1:])

    def __call__(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:
        """Which patches have a pixel of the mask in the centre 32x32, or in their cell where the stride is larger."""
        top, bottom = self._limits(tiling, rows, self._top, self._shape[0])
        left, right = self._limits(tiling, columns, self._left, self._shape[1])
        sums = self._sums
        inside = (
            sums[bottom[:, None], right] - sums[top[:, None], right] - sums[bottom[:, None], left]
            + sums[top[:, None], left]
        )  # fmt: skip
        return np.asarray(inside > 0)

    def _limits(self, tiling: Tiling, indices: Indices, origin: int, length: int) -> tuple[Indices, Indices]:
        """First and last + 1 pixel of the mask under each patch's centre, along one axis."""
        side, ratio = max(tiling.stride, CENTRE_SIZE), tiling.grid.downsample / self._grid.downsample
        start = indices * tiling.stride + (PATCH_SIZE - side) / 2
        first = np.floor(start * ratio).astype(np.int64) - origin
        last = np.ceil((start + side) * ratio).astype(np.int64) - origin
        return np.clip(first, 0, length - 1), np.clip(last, 1, length)
