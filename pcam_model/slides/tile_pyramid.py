"""A slide as a pyramid of JPEG tiles, as zoomable viewers show it."""

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pcam_model.core.concurrency import ordered_prefetch
from pcam_model.core.schema import Record
from pcam_model.slides.geometry import Grid, Point, Region, Size
from pcam_model.slides.reader import Pixels, SlideReader
from pcam_model.slides.region_reader import ScaledReader
from pcam_model.slides.scale import choose_level

TILE = 512
JPEG_QUALITY = 80
MAX_THREADS = 4
MAX_SUBTREES = 64
"""Tiles that are kept in memory, each with all finer ones below it written."""


class TilePyramid(Record):
    """The levels of a pyramid: `<level>/<column>_<row>.jpg`; each level has twice the pixels of the one before."""

    width: int
    """Of the finest level, in pixels."""
    height: int
    levels: int
    """Level 0 is one tile."""
    tile: int = TILE
    """Width and height of a tile, smaller at the right and at the bottom."""
    mpp: float
    """Microns per pixel of the finest level."""


class _Cell(NamedTuple):
    level: int
    column: int
    row: int


def write_tiles(folder: Path, reader: SlideReader, mpp: float, finest_mpp: float) -> TilePyramid:
    """Write the tiles of all of a slide; memory does not grow with its size.

    Args:
        folder: for the levels' folders.
        reader: of the slide.
        mpp: microns per pixel of its level 0.
        finest_mpp: of the pyramid; the finest level has this many or, as a power of 2 of level 0, up to half as many.

    Raises:
        SourceError: the file is damaged.
    """
    grid = Grid(2.0 ** max(math.floor(math.log2(finest_mpp / mpp * 1.02)), 0))
    level, grid = choose_level(reader.levels, grid.downsample)
    writer = _TileWriter(folder, ScaledReader(reader, level, grid), reader.levels[0].size.on(grid))
    writer.write()
    return TilePyramid(width=writer.width, height=writer.height, levels=writer.finest + 1, mpp=mpp * grid.downsample)


class _TileWriter:
    """Writes the tiles, each from the four finer ones below it."""

    def __init__(self, folder: Path, scaled: ScaledReader, size: Size) -> None:
        self.folder, self.scaled = folder, scaled
        self.width, self.height = max(int(size.width), 1), max(int(size.height), 1)
        self.finest = max(math.ceil(math.log2(max(self.width, self.height) / TILE)), 0)
        self._done: dict[_Cell, Pixels] = {}

    def write(self) -> None:
        for level in range(self.finest + 1):
            (self.folder / str(level)).mkdir(parents=True)
        shared = max(level for level in range(self.finest + 1) if len(self._cells(level)) <= MAX_SUBTREES)
        threads, cells = min(MAX_THREADS, os.cpu_count() or 1), self._cells(shared)
        self._done = dict(zip(cells, ordered_prefetch(self._write, cells, threads, 2 * threads), strict=True))
        self._write(_Cell(0, 0, 0))

    def _cells(self, level: int) -> list[_Cell]:
        width, height = self._size(level)
        rows, columns = math.ceil(height / TILE), math.ceil(width / TILE)
        return [_Cell(level, column, row) for row in range(rows) for column in range(columns)]

    def _size(self, level: int) -> tuple[int, int]:
        """Width and height of a level, in pixels."""
        factor = 2 ** (self.finest - level)
        return math.ceil(self.width / factor), math.ceil(self.height / factor)

    def _write(self, cell: _Cell) -> Pixels:
        """Write a tile and all finer ones below it; returns its pixels."""
        if cell in self._done:
            return self._done[cell]
        pixels = self._read(cell) if cell.level == self.finest else self._halve(cell)
        path = self.folder / str(cell.level) / f"{cell.column}_{cell.row}.jpg"
        Image.fromarray(pixels).save(path, "JPEG", quality=JPEG_QUALITY)
        return pixels

    def _read(self, cell: _Cell) -> Pixels:
        left, top = cell.column * TILE, cell.row * TILE
        size = Size(min(TILE, self.width - left), min(TILE, self.height - top), self.scaled.grid)
        return self.scaled.read(Region(Point(left, top, self.scaled.grid), size))

    def _halve(self, cell: _Cell) -> Pixels:
        """A tile as the means of squares of four pixels of the tiles below it."""
        width, height = self._size(cell.level + 1)
        columns, rows = math.ceil(width / TILE), math.ceil(height / TILE)
        below = [
            [
                self._write(_Cell(cell.level + 1, column, row))
                for column in range(2 * cell.column, min(2 * cell.column + 2, columns))
            ]
            for row in range(2 * cell.row, min(2 * cell.row + 2, rows))
        ]
        pixels = np.concatenate([np.concatenate(tiles, axis=1) for tiles in below])
        odd_height, odd_width = pixels.shape[0] % 2, pixels.shape[1] % 2
        even = np.pad(pixels, ((0, odd_height), (0, odd_width), (0, 0)), mode="edge")
        return np.asarray(Image.fromarray(even).reduce(2))
