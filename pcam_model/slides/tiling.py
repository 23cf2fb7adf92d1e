"""The patches of a slide: their positions at a stride, and the blocks in which they are read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.data.image import PATCH_SIZE
from pcam_model.slides.geometry import Grid, Point, Region, Size

MAX_SOURCE_SIDE, MAX_BLOCK_SIDE, MIN_BLOCK_SIDE = 2048, 1024, 128

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Tiling:
    """Patches at a stride over a slide: those in row i and column j begin at (stride * j, stride * i) on the grid."""

    grid: Grid
    stride: int
    rows: int
    columns: int

    @property
    def cell_size(self) -> Size:
        """The square that a patch's probability stands for: around its centre, as wide as the stride."""
        return Size(self.stride, self.stride, self.grid)

    @property
    def cell_origin(self) -> Point:
        """The top left corner of the cell in row 0 and column 0."""
        start = (PATCH_SIZE - self.stride) / 2
        return Point(start, start, self.grid)

    def centre(self, row: int, column: int) -> Point:
        """The centre of a patch."""
        return Point(column * self.stride + PATCH_SIZE / 2, row * self.stride + PATCH_SIZE / 2, self.grid)


@dataclass(frozen=True)
class Block:
    """Neighbouring patches, and the region that covers them all."""

    region: Region
    rows: Indices
    """(N,): row of each patch in the tiling."""
    columns: Indices
    """(N,)."""
    offsets: Indices
    """(N, 2): y and x of each patch's top left corner within the region."""


Selection = Callable[[Tiling, Indices, Indices], Mask]
"""Which of the patches in R rows and C columns of a tiling are wanted: bool (R, C)."""


def make_tiling(slide_size: Size, grid: Grid, stride: int, name: str) -> Tiling:
    """All whole patches of a slide.

    Args:
        slide_size: of level 0.
        grid: of the patches' pixels.
        stride: between neighbouring patches, in pixels of the grid.
        name: of the slide, for errors.

    Raises:
        SourceError: the slide is smaller than a patch.
    """
    if not 1 <= stride <= PATCH_SIZE:
        raise ConfigError(
            f"the stride is {stride}, expected 1 to {PATCH_SIZE} pixels; 32 takes every centre of a patch once"
        )
    size = slide_size.on(grid)
    width, height = round(size.width), round(size.height)
    if min(width, height) < PATCH_SIZE:
        raise SourceError(
            f"{name}: the slide has {width} x {height} pixels at the model's scale, and a patch has "
            f"{PATCH_SIZE} x {PATCH_SIZE}"
        )
    return Tiling(grid, stride, (height - PATCH_SIZE) // stride + 1, (width - PATCH_SIZE) // stride + 1)


def count_patches(tiling: Tiling, wanted: Selection) -> int:
    """The number of wanted patches."""
    columns, step = np.arange(tiling.columns), MAX_BLOCK_SIDE
    starts = range(0, tiling.rows, step)
    return sum(int(wanted(tiling, np.arange(top, min(top + step, tiling.rows)), columns).sum()) for top in starts)


def block_side(ratio: float, stride: int) -> int:
    """Rows and columns of patches in a block, so that its region is at most about 2048 pixels wide on its level.

    Args:
        ratio: pixels of the level per pixel of the patches.
        stride: in pixels of the patches.
    """
    side = min(max(MAX_SOURCE_SIDE / ratio, MIN_BLOCK_SIDE), MAX_BLOCK_SIDE)
    return max(int(side) // stride, 1)


def blocks(tiling: Tiling, side: int, wanted: Selection) -> Iterator[Block]:
    """The blocks of `side` x `side` patches, row by row, with the wanted patches; blocks without any are left out."""
    for top in range(0, tiling.rows, side):
        rows = np.arange(top, min(top + side, tiling.rows))
        for left in range(0, tiling.columns, side):
            columns = np.arange(left, min(left + side, tiling.columns))
            chosen = np.argwhere(wanted(tiling, rows, columns))
            if len(chosen):
                yield _block(tiling, rows[chosen[:, 0]], columns[chosen[:, 1]])


def every_patch(_: Tiling, rows: Indices, columns: Indices) -> Mask:
    """A `Selection` of all patches."""
    return np.ones((len(rows), len(columns)), bool)


def _block(tiling: Tiling, rows: Indices, columns: Indices) -> Block:
    top, left = int(rows.min()), int(columns.min())
    stride, grid = tiling.stride, tiling.grid
    size = Size((int(columns.max()) - left) * stride + PATCH_SIZE, (int(rows.max()) - top) * stride + PATCH_SIZE, grid)
    offsets = np.stack([(rows - top) * stride, (columns - left) * stride], axis=1)
    return Block(Region(Point(left * stride, top * stride, grid), size), rows, columns, offsets)
