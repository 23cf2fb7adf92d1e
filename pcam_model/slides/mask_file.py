"""Masks of a whole slide in a file: a tiled TIFF of any size, or a small picture."""

from pathlib import Path

import numpy as np
from PIL import Image

from pcam_model.core.errors import SourceError
from pcam_model.slides.geometry import Grid, Level, Point, Region, Size
from pcam_model.slides.open_slide import open_slide
from pcam_model.slides.reader import Pixels, SlideReader
from pcam_model.slides.region_files import require_aspect
from pcam_model.slides.tiling import Indices, Mask, Tiling
from pcam_model.slides.tissue import TissueCells

CELLS_AT_A_TIME = 64
ROWS_AT_A_TIME = 256


class PictureReader:
    """A `SlideReader` over a picture in memory."""

    vendor = "picture"
    mpp: float | None = None
    levels: tuple[Level, ...]

    def __init__(self, path: Path) -> None:
        """Read the picture. Raises SourceError where it is none."""
        try:
            with Image.open(path) as image:
                self._pixels: Pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise SourceError(f"{path}: it is no mask ({error}); expected a tiled TIFF or a picture") from error
        height, width = self._pixels.shape[:2]
        self.levels = (Level(0, Size(width, height)),)

    def read(self, level: Level, region: Region) -> Pixels:  # noqa: ARG002 - of the protocol
        """See `SlideReader`; the region is within the picture."""
        x, y = int(region.origin.x), int(region.origin.y)
        return self._pixels[y : y + int(region.size.height), x : x + int(region.size.width)]

    def close(self) -> None:
        """Do nothing: no file is open."""


class MaskFile:
    """`TumourRegions` of a picture of the whole slide that is black where there is no tumour."""

    def __init__(self, path: Path, slide_size: Size) -> None:
        """Open the mask of a slide of this size of level 0.

        Raises:
            SourceError: it cannot be read, or has another shape than the slide.
        """
        try:
            self._reader: SlideReader = open_slide(path)
        except SourceError:
            self._reader = PictureReader(path)
        size = self._reader.levels[0].size
        require_aspect(path, (int(size.width), int(size.height)), (int(slide_size.height), int(slide_size.width)))
        self._downsample = slide_size.width / size.width
        self._slide_size = slide_size

    def tumour_cells(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:
        """See `TumourRegions`."""
        found = np.zeros((len(rows), len(columns)), bool)
        step = CELLS_AT_A_TIME
        for top in range(0, len(rows), step):
            for left in range(0, len(columns), step):
                part = (rows[top : top + step], columns[left : left + step])
                found[top : top + step, left : left + step] = self._cells(tiling, *part)
        return found

    def normal_cells(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:  # noqa: ARG002 - of the protocol
        """None: a mask names no class but tumour."""
        return np.zeros((len(rows), len(columns)), bool)

    def ignored_cells(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:  # noqa: ARG002 - of the protocol
        """None: a mask names no class but tumour."""
        return np.zeros((len(rows), len(columns)), bool)

    def mask(self, shape: tuple[int, int], grid: Grid) -> Mask:
        """See `TumourRegions`; the nearest pixels of the file."""
        level = self._level(grid)
        ratio = grid.downsample / self._grid(level).downsample
        width, height = int(level.size.width), int(level.size.height)
        rows = np.minimum(((np.arange(shape[0]) + 0.5) * ratio).astype(np.int64), height - 1)
        columns = np.minimum(((np.arange(shape[1]) + 0.5) * ratio).astype(np.int64), width - 1)
        found = np.zeros(shape, bool)
        for start in range(0, shape[0], ROWS_AT_A_TIME):
            part = rows[start : start + ROWS_AT_A_TIME]
            pixels = self._read(level, 0, int(part[0]), width, int(part[-1]) + 1)
            found[start : start + len(part)] = pixels[np.ix_(part - part[0], columns)]
        return found

    def _cells(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:
        """Which patches have a pixel of the mask in their centre, of few rows and columns that are read at once."""
        level = self._level(tiling.grid)
        grid = self._grid(level)
        first = tiling.centre(int(rows[0]), int(columns[0])).on(grid)
        last = tiling.centre(int(rows[-1]), int(columns[-1])).on(grid)
        margin = Size(tiling.stride, 0, tiling.grid).on(grid).width + 32
        left, top = max(int(first.x - margin), 0), max(int(first.y - margin), 0)
        right = min(int(last.x + margin) + 1, int(level.size.width))
        bottom = min(int(last.y + margin) + 1, int(level.size.height))
        return TissueCells(self._read(level, left, top, right, bottom), grid, top, left)(tiling, rows, columns)

    def _level(self, grid: Grid) -> Level:
        """The coarsest level that is as fine as a grid, else the finest."""
        fine = [level for level in self._reader.levels if self._grid(level).downsample <= grid.downsample * 1.02]
        return max(fine or self._reader.levels[:1], key=lambda level: level.grid.downsample)

    def _grid(self, level: Level) -> Grid:
        """The grid of a level of the mask on the slide."""
        return Grid(level.grid.downsample * self._downsample)

    def _read(self, level: Level, left: int, top: int, right: int, bottom: int) -> Mask:
        region = Region(Point(left, top, level.grid), Size(right - left, bottom - top, level.grid))
        return np.asarray(self._reader.read(level, region).any(axis=2))
