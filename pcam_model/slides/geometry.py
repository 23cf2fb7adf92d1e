"""Points, sizes and regions of a slide, each on a pixel grid, so that coordinates of two levels cannot be mixed."""

import math
from dataclasses import dataclass

GRID_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Grid:
    """Square pixels from the top left corner of a slide."""

    downsample: float
    """Width of one pixel, in pixels of level 0."""

    def __post_init__(self) -> None:
        if not 0 < self.downsample < math.inf:
            raise ValueError(f"a grid's downsample is {self.downsample}; expected a number above 0")

    def is_close(self, other: "Grid") -> bool:
        """Whether both are the same grid, but for rounding."""
        return math.isclose(self.downsample, other.downsample, rel_tol=GRID_TOLERANCE)


LEVEL_0 = Grid(1.0)


@dataclass(frozen=True)
class Point:
    """A position on a grid, in its pixels."""

    x: float
    y: float
    grid: Grid = LEVEL_0

    def on(self, grid: Grid) -> "Point":
        """The same position in the pixels of another grid."""
        ratio = self.grid.downsample / grid.downsample
        return Point(self.x * ratio, self.y * ratio, grid)

    def __add__(self, size: "Size") -> "Point":
        """The point moved by a size of the same grid. Raises ValueError for one of another grid."""
        require_grid(size.grid, self.grid)
        return Point(self.x + size.width, self.y + size.height, self.grid)


@dataclass(frozen=True)
class Size:
    """A width and a height on a grid, in its pixels."""

    width: float
    height: float
    grid: Grid = LEVEL_0

    def on(self, grid: Grid) -> "Size":
        """The same size in the pixels of another grid."""
        ratio = self.grid.downsample / grid.downsample
        return Size(self.width * ratio, self.height * ratio, grid)

    @property
    def area(self) -> float:
        """Width times height, in pixels of the grid."""
        return self.width * self.height

    def rounded(self) -> "Size":
        """Whole pixels, at least one in each direction."""
        return Size(max(round(self.width), 1), max(round(self.height), 1), self.grid)


@dataclass(frozen=True)
class Region:
    """A rectangle on a grid. Raises ValueError where origin and size are of different grids."""

    origin: Point
    size: Size

    def __post_init__(self) -> None:
        require_grid(self.size.grid, self.origin.grid)

    @property
    def grid(self) -> Grid:
        """The grid of its coordinates."""
        return self.origin.grid

    @property
    def end(self) -> Point:
        """The corner opposite to the origin: the first pixel to the right of and below the region."""
        return self.origin + self.size

    def on(self, grid: Grid) -> "Region":
        """The same rectangle in the pixels of another grid."""
        return Region(self.origin.on(grid), self.size.on(grid))

    def rounded(self) -> "Region":
        """The nearest rectangle of whole pixels, at least one pixel large."""
        origin = Point(round(self.origin.x), round(self.origin.y), self.grid)
        return Region(origin, self.size.rounded())

    def covering(self, margin: int = 0) -> "Region":
        """The smallest rectangle of whole pixels that covers this one, with a margin on each side."""
        left, top = math.floor(self.origin.x) - margin, math.floor(self.origin.y) - margin
        right, bottom = math.ceil(self.end.x) + margin, math.ceil(self.end.y) + margin
        return Region(Point(left, top, self.grid), Size(right - left, bottom - top, self.grid))


@dataclass(frozen=True)
class Level:
    """A stored resolution of a slide."""

    index: int
    size: Size
    """Its width and height in its own pixels."""

    @property
    def grid(self) -> Grid:
        """The grid of its pixels."""
        return self.size.grid


def require_grid(grid: Grid, expected: Grid) -> None:
    """Raise ValueError where two grids differ."""
    if not grid.is_close(expected):
        raise ValueError(
            f"coordinates of the grid with downsample {grid.downsample:g} were given where the grid is "
            f"{expected.downsample:g}; convert them with .on(grid)"
        )
