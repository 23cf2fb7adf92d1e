"""The tissue mask keeps stained tissue and leaves out glass, borders and pen."""

import numpy as np
import pytest
from slide_files import Composed

from pcam_model.slides.geometry import Grid, Size
from pcam_model.slides.tiling import make_tiling
from pcam_model.slides.tissue import TissueCells, tissue_mask

MPP = 8.0
PINK, PURPLE, GLASS = (222, 160, 196), (120, 80, 150), (243, 242, 244)
INKS = {"green": (40, 130, 80), "blue": (40, 60, 180), "red": (215, 30, 45), "black": (30, 28, 32)}


def scene(**squares: tuple[int, int, int]) -> np.ndarray:
    """Noisy glass, 90 x 200, with tissue at columns 20 to 60 and squares of 30 x 30 from column 80 on."""
    pixels = np.full((90, 200, 3), GLASS, float)
    pixels[20:70, 20:60] = PINK
    pixels[30:50, 30:50] = PURPLE
    for number, colour in enumerate(squares.values()):
        pixels[20:50, 80 + 40 * number : 110 + 40 * number] = colour
    noise = np.random.default_rng(1).normal(0, 3, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def test_tissue_is_kept_and_glass_left_out() -> None:
    expected = np.zeros((90, 200), bool)
    expected[20:70, 20:60] = True
    assert (tissue_mask(scene(), MPP) == expected).mean() > 0.995


@pytest.mark.parametrize("ink", INKS)
def test_pen_is_left_out(ink: str) -> None:
    mask = tissue_mask(scene(pen=INKS[ink]), MPP)
    assert mask[22:68, 22:58].all()
    assert not mask[24:46, 84:106].any()


def test_black_borders_are_left_out() -> None:
    pixels = scene()
    pixels[:10], pixels[:, :6] = 2, 5
    mask = tissue_mask(pixels, MPP)
    assert not mask[:10].any()
    assert not mask[:, :6].any()
    assert mask[22:68, 22:58].all()


def test_a_slide_full_of_tissue_is_kept_whole_and_an_empty_one_not() -> None:
    random = np.random.default_rng(2)
    full = np.where(random.random((80, 80, 1)) < 0.5, PINK, PURPLE) + random.normal(0, 5, (80, 80, 3))
    assert tissue_mask(np.clip(full, 0, 255).astype(np.uint8), MPP).mean() > 0.98
    empty = np.clip(np.array(GLASS) + random.normal(0, 1.5, (80, 80, 3)), 0, 255).astype(np.uint8)
    assert not tissue_mask(empty, MPP).any()
    assert not tissue_mask(np.zeros((8, 8, 3), np.uint8), MPP).any()


def test_generated_patches_are_tissue_and_the_gaps_are_not(composed: Composed) -> None:
    height, width = composed.pixels.shape[:2]
    small = composed.pixels.reshape(height // 8, 8, width // 8, 8, 3).mean((1, 3)).astype(np.uint8)
    mask = tissue_mask(small, 8 * 0.972)
    for y, x in composed.corners // 8:
        assert mask[y : y + 12, x : x + 12].mean() > 0.8
    assert not mask[0:3].any()


def test_a_patch_is_taken_where_its_centre_touches_the_mask() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10, 20] = True  # level-0 pixels 160..167, 80..87
    cells = TissueCells(mask, Grid(8.0))
    tiling = make_tiling(Size(480, 320), Grid(1.0), 32, "slide")
    chosen = cells(tiling, np.arange(tiling.rows), np.arange(tiling.columns))
    expected = np.zeros((tiling.rows, tiling.columns), bool)
    for row in range(tiling.rows):
        for column in range(tiling.columns):
            top, left = row * 32 + 32, column * 32 + 32
            expected[row, column] = mask[top // 8 : (top + 32) // 8, left // 8 : (left + 32) // 8].any()
    assert chosen.sum() == 1
    np.testing.assert_array_equal(chosen, expected)
    wide = make_tiling(Size(480, 320), Grid(1.0), 96, "slide")
    assert cells(wide, np.arange(wide.rows), np.arange(wide.columns)).sum() == 1
