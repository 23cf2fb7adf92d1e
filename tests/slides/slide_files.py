"""Small slides in real formats: tiled pyramidal TIFFs composed of patches."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from pcam_model.data.sample import SamplePatches
from pcam_model.slides.reader import Pixels

TILE = 64


class Composed(NamedTuple):
    """A mosaic of patches on white glass."""

    pixels: Pixels
    """(H, W, 3), one pixel of the patches each."""
    patches: Pixels
    """(N, 96, 96, 3)."""
    labels: NDArray[np.int64]
    corners: NDArray[np.int64]
    """(N, 2): y and x of each patch's top left corner."""


def compose(rows: int = 3, columns: int = 4, gap: int = 32, seed: int = 3) -> Composed:
    """A mosaic of generated patches on white, with gaps on all sides."""
    sample = SamplePatches(rows * columns, seed)
    patches = np.stack([sample.patch(row) for row in range(rows * columns)])
    step = 96 + gap
    pixels = np.full((rows * step + gap, columns * step + gap, 3), 255, np.uint8)
    corners = np.array([(gap + row * step, gap + column * step) for row in range(rows) for column in range(columns)])
    for patch, (y, x) in zip(patches, corners, strict=True):
        pixels[y : y + 96, x : x + 96] = patch
    return Composed(pixels, patches, sample.table["label"].to_numpy(np.int64), corners)


def write_slide(
    path: Path, pixels: Pixels, mpp: float | None = 0.972, levels: int = 2, compression: str | None = None
) -> Path:
    """A tiled TIFF with a pyramid, each level half as large, as OpenSlide reads it; without `mpp` it tells none."""
    unit = {"resolutionunit": "CENTIMETER", "resolution": (1e4 / mpp, 1e4 / mpp)} if mpp else {"resolutionunit": "NONE"}
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            file.write(
                pixels, tile=(TILE, TILE), photometric="rgb", compression=compression, subfiletype=int(level > 0),
                metadata=None, **unit,
            )  # fmt: skip
            height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
            halves = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
            pixels = np.rint(halves.mean((1, 3))).astype(np.uint8)
    return path


def enlarged(pixels: Pixels, factor: int) -> Pixels:
    """Each pixel as a square of pixels."""
    return np.repeat(np.repeat(pixels, factor, 0), factor, 1)
