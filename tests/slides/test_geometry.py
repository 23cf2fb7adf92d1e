"""Coordinates of two grids cannot be mixed, and are converted exactly."""

import pytest

from pcam_model.slides.geometry import LEVEL_0, Grid, Level, Point, Region, Size, require_grid

HALF = Grid(2.0)


def test_a_region_is_the_same_rectangle_on_every_grid() -> None:
    region = Region(Point(10, 20, HALF), Size(30, 40, HALF))
    assert region.on(LEVEL_0) == Region(Point(20, 40), Size(60, 80))
    assert region.on(LEVEL_0).on(HALF) == region
    assert region.end == Point(40, 60, HALF)
    assert region.grid == HALF


def test_coordinates_of_two_grids_do_not_mix() -> None:
    with pytest.raises(ValueError, match="downsample 1 were given where the grid is 2"):
        Region(Point(0, 0, HALF), Size(1, 1))
    with pytest.raises(ValueError, match="convert them with"):
        Point(0, 0) + Size(1, 1, HALF)
    with pytest.raises(ValueError, match="downsample"):
        require_grid(Grid(4.0), Level(1, Size(5, 5, HALF)).grid)
    require_grid(Grid(2.0 + 1e-12), HALF)


@pytest.mark.parametrize("downsample", [0.0, -1.0, float("nan"), float("inf")])
def test_a_grid_has_pixels(downsample: float) -> None:
    with pytest.raises(ValueError, match="downsample"):
        Grid(downsample)


def test_rounding_covers_or_takes_the_nearest_pixels() -> None:
    region = Region(Point(1.4, 2.6), Size(3.2, 0.1))
    assert region.covering() == Region(Point(1, 2), Size(4, 1))
    assert region.covering(margin=2) == Region(Point(-1, 0), Size(8, 5))
    assert region.rounded() == Region(Point(1, 3), Size(3, 1))
