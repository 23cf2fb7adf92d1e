"""The overview of a slide: all of it at a low resolution, read in pieces."""

import math
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pcam_model.core.concurrency import ordered_prefetch
from pcam_model.slides.geometry import Grid, Point, Region, Size
from pcam_model.slides.reader import Pixels, SlideReader
from pcam_model.slides.region_reader import ScaledReader
from pcam_model.slides.scale import choose_level

OVERVIEW_MPP = 8.0
MAX_PIXELS = 4_000_000
SOURCE_SIDE = 2048
MAX_THREADS = 4


class Overview(NamedTuple):
    """A slide at a low resolution."""

    pixels: Pixels
    """(H, W, 3), uint8."""
    grid: Grid


def read_overview(reader: SlideReader, mpp: float) -> Overview:
    """The whole slide at about 8 microns per pixel, or coarser where that is more than 4 million pixels.

    Args:
        reader: of the slide.
        mpp: microns per pixel of its level 0.

    Raises:
        SourceError: the file is damaged.
    """
    slide = reader.levels[0].size
    least = max(OVERVIEW_MPP / mpp, math.sqrt(slide.area / MAX_PIXELS), 1)
    level, _ = choose_level(reader.levels, least)
    grid = Grid(level.grid.downsample * math.ceil(least / level.grid.downsample))  # pixels are means of whole squares
    scaled = ScaledReader(reader, level, grid)
    size = slide.on(grid)
    width, height = max(int(size.width), 1), max(int(size.height), 1)
    pixels = np.empty((height, width, 3), np.uint8)
    side = max(int(SOURCE_SIDE / scaled.ratio), 16)
    pieces = list(_pieces(width, height, side, grid))
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    for piece, part in zip(pieces, ordered_prefetch(scaled.read, pieces, threads, 2 * threads), strict=True):
        top, left = int(piece.origin.y), int(piece.origin.x)
        pixels[top : top + len(part), left : left + part.shape[1]] = part
    return Overview(pixels, grid)


def _pieces(width: int, height: int, side: int, grid: Grid) -> Iterator[Region]:
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Region(Point(left, top, grid), Size(min(side, width - left), min(side, height - top), grid))
