"""What `slides.html` shows of one slide: its tiles, the heatmap as a layer, and the outlines of tumour."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcam_model.core.schema import Record
from pcam_model.slides.geometry import LEVEL_0, Size
from pcam_model.slides.heatmap import colour_map
from pcam_model.slides.probability_map import ProbabilityMap
from pcam_model.slides.reader import SlideReader
from pcam_model.slides.tile_pyramid import TilePyramid, write_tiles

VIEW_DIR, DATA_FILE, LAYER_FILE = "view", "slide.js", "heatmap.png"
MAX_LAYER_SIDE = 4096
MAX_CELL_PIXELS = 8
LEAST_OPACITY = 0.2
MAX_OUTLINES = 2000
"""More would make a browser slow."""


class Layer(Record):
    """Where the heatmap lies, in widths of the slide."""

    x: float
    y: float
    width: float


class SlideView(Record):
    """The content of slide.js."""

    name: str
    width: float
    """Of level 0, in pixels; so is the height."""
    height: float
    mpp: float
    """Microns per pixel of level 0."""
    tiles: TilePyramid
    heatmap: Layer
    outlines: str
    """The largest outlines as an SVG path, in pixels of level 0."""
    shown_outlines: int
    all_outlines: int


def write_view(
    folder: Path,
    name: str,
    reader: SlideReader,
    mpp: float,
    view_mpp: float,
    probabilities: ProbabilityMap,
    outlines: Sequence[dict[str, Any]],
) -> None:
    """Write the folder `view` of a slide's results.

    Args:
        folder: of the slide's results.
        name: of the slide.
        reader: of the slide.
        mpp: microns per pixel of its level 0.
        view_mpp: microns per pixel of the finest tiles.
        probabilities: of the slide.
        outlines: the features of tumour.geojson, the largest first.
    """
    view, size = folder / VIEW_DIR, reader.levels[0].size
    tiles = write_tiles(view, reader, mpp, view_mpp)
    _write_layer(view / LAYER_FILE, probabilities.values)
    content = SlideView(
        name=name,
        width=size.width,
        height=size.height,
        mpp=mpp,
        tiles=tiles,
        heatmap=_layer(probabilities, size),
        outlines="".join(map(_path, outlines[:MAX_OUTLINES])),
        shown_outlines=min(len(outlines), MAX_OUTLINES),
        all_outlines=len(outlines),
    )
    # A script, since a page that is opened from a disk may load one, and no JSON.
    (view / DATA_FILE).write_text(f"showSlide({json.dumps(content.model_dump())});\n", "utf-8")


def _layer(probabilities: ProbabilityMap, slide: Size) -> Layer:
    tiling = probabilities.tiling
    origin = tiling.cell_origin.on(LEVEL_0)
    columns = tiling.columns + -tiling.columns % _reduction(probabilities.values)
    width = columns * tiling.cell_size.on(LEVEL_0).width
    return Layer(x=origin.x / slide.width, y=origin.y / slide.width, width=width / slide.width)


def _reduction(values: NDArray[np.float32]) -> int:
    """Cells in each direction that one pixel of the layer stands for."""
    side: int = max(values.shape)
    return math.ceil(side / MAX_LAYER_SIDE)


def _write_layer(path: Path, values: NDArray[np.float32]) -> None:
    """Write probabilities (H, W) as colours with opacity; at most 4096 pixels wide and high."""
    values = _block_maximum(values, _reduction(values))
    image = Image.fromarray(np.dstack([colour_map(values), _alpha(values)]))
    # Viewers smooth what they enlarge: cells of several pixels keep their edges.
    scale = max(min(MAX_CELL_PIXELS, MAX_LAYER_SIDE // max(values.shape)), 1)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path, "PNG")


def _alpha(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Opacity: full from a probability of 0.5 on, a veil at 0, so that the slide is seen; 0 where there is none."""
    opacity = np.nan_to_num(np.clip(values / 0.5, LEAST_OPACITY, 1), nan=0)
    return np.asarray(np.rint(255 * opacity), np.uint8)


def _block_maximum(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """The largest value of each square of `factor` cells, so that no small spot is lost; NaN where all are."""
    padding = [(0, -length % factor) for length in values.shape]
    padded = np.pad(values, padding, constant_values=np.nan)
    height, width = (length // factor for length in padded.shape)
    largest: NDArray[np.float32] = np.fmax.reduce(padded.reshape(height, factor, width, factor), axis=(1, 3))
    return largest


def _path(feature: dict[str, Any]) -> str:
    """The rings of a polygon as SVG, in whole pixels."""
    rings = feature["geometry"]["coordinates"]
    return "".join("M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in ring[:-1]) + "Z" for ring in rings)
