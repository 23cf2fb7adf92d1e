"""Heatmaps of a slide: a picture over its overview, and a tiled pyramid for slide viewers."""

from pathlib import Path

import numpy as np
from PIL import Image

from pcam_model.core.errors import require_package
from pcam_model.slides.geometry import LEVEL_0, Point
from pcam_model.slides.overview import Overview
from pcam_model.slides.probability_map import ProbabilityMap
from pcam_model.slides.reader import Pixels

COLOURS = "inferno"
TILE = 256
PICTURE_SIDE = 1600
HEAT_WEIGHT = 0.65


def colour_map(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Pixels:
    """Probabilities (H, W) as colours (H, W, 3), uint8; white where they are NaN."""
    import matplotlib

    palette = np.rint(matplotlib.colormaps[COLOURS](np.arange(256))[:, :3] * 255).astype(np.uint8)
    missing = np.isnan(values)
    colours: Pixels = palette[np.rint(np.where(missing, 0, values) * 255).astype(np.uint8)]
    colours[missing] = 255
    return colours


def write_picture(path: Path, overview: Overview, probabilities: ProbabilityMap) -> None:
    """Write a PNG, at most 1600 pixels wide and high, of the slide in grey with the probabilities over it."""
    height, width = overview.pixels.shape[:2]
    rows, columns = (_cells_under(length, overview, probabilities, axis) for axis, length in enumerate((height, width)))
    values = np.full((height, width), np.nan, np.float32)
    inside = np.ix_(rows >= 0, columns >= 0)
    values[inside] = probabilities.values[np.ix_(rows[rows >= 0], columns[columns >= 0])]
    grey = Image.fromarray(overview.pixels).convert("L").convert("RGB")
    heat = Image.blend(grey, Image.fromarray(colour_map(values)), HEAT_WEIGHT)
    image = Image.composite(heat, grey, Image.fromarray(~np.isnan(values)))
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
    image.save(path, "PNG")


def _cells_under(
    length: int, overview: Overview, probabilities: ProbabilityMap, axis: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The row (axis 0) or column of the cell under each pixel of the overview, (length,); -1 outside of the map."""
    tiling = probabilities.tiling
    ratio = overview.grid.downsample / tiling.grid.downsample
    position = (np.arange(length) + 0.5) * ratio - tiling.cell_origin.x
    index = np.floor(position / tiling.stride).astype(np.int64)
    return np.where((index >= 0) & (index < probabilities.values.shape[axis]), index, -1)


def write_pyramid(path: Path, probabilities: ProbabilityMap, mpp: float) -> None:
    """Write a tiled TIFF with a pixel a cell and a pyramid, as QuPath and OpenSlide open it.

    It begins at the slide's corner; the scale is in its resolution.

    Args:
        path: the file.
        probabilities: of the slide.
        mpp: microns per pixel of the slide's level 0.
    """
    with require_package("writing the heatmap", extra="slides"):
        import tifffile
    tiling = probabilities.tiling
    image = Image.fromarray(colour_map(_from_corner(probabilities)))
    cell_mpp = Point(tiling.stride, 0, tiling.grid).on(LEVEL_0).x * mpp
    level = 0
    with tifffile.TiffWriter(path) as file:
        while True:
            resolution = 1e4 / (cell_mpp * 2**level)
            file.write(
                np.asarray(image), tile=(TILE, TILE), photometric="rgb", compression="zlib", metadata=None,
                resolution=(resolution, resolution), resolutionunit="CENTIMETER", subfiletype=int(level > 0),
            )  # fmt: skip
            if max(image.size) <= TILE:
                break
            image, level = image.reduce(2), level + 1


def _from_corner(probabilities: ProbabilityMap) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The map with empty cells before it, so that its first pixel is at the slide's corner to within half a cell."""
    tiling = probabilities.tiling
    before = round(tiling.cell_origin.x / tiling.stride)
    return np.pad(probabilities.values, ((before, 0), (before, 0)), constant_values=np.nan)
