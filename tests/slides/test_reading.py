"""Slides are read at the model's scale, exactly where a level has it, and a slide of unknown scale is refused."""

import logging
from pathlib import Path

import numpy as np
import pytest
from slide_files import Composed, enlarged, write_slide

from pcam_model.core.errors import SourceError
from pcam_model.slides.geometry import LEVEL_0, Grid, Level, Point, Region, Size
from pcam_model.slides.open_slide import open_slide
from pcam_model.slides.openslide_reader import read_mpp
from pcam_model.slides.overview import read_overview
from pcam_model.slides.reader import SlideReader
from pcam_model.slides.region_reader import ScaledReader
from pcam_model.slides.scale import choose_level, slide_scale


def levels(*downsamples: float) -> tuple[Level, ...]:
    return tuple(Level(index, Size(10_000 / each, 8_000 / each, Grid(each))) for index, each in enumerate(downsamples))


def scaled(reader: SlideReader, mpp: float = 0.972) -> ScaledReader:
    scale = slide_scale(reader, "slide", mpp)
    return ScaledReader(reader, scale.level, scale.grid)


def test_levels_pixels_and_scale_of_a_tiled_tiff(tmp_path: Path, composed: Composed) -> None:
    reader = open_slide(write_slide(tmp_path / "a.tif", composed.pixels, levels=2))
    height, width = composed.pixels.shape[:2]
    assert [level.size for level in reader.levels] == [Size(width, height), Size(width / 2, height / 2, Grid(2.0))]
    assert reader.mpp == pytest.approx(0.972, rel=1e-5)
    pixels = reader.read(reader.levels[0], Region(Point(0, 0), Size(width, height)))
    np.testing.assert_array_equal(pixels, composed.pixels)
    outside = reader.read(reader.levels[0], Region(Point(width - 4, height - 4), Size(8, 8)))
    assert outside[4:].min() == outside[:, 4:].min() == 255
    with pytest.raises(ValueError, match="convert them with"):
        reader.read(reader.levels[1], Region(Point(0, 0), Size(8, 8)))
    reader.close()


@pytest.mark.parametrize(("factor", "stored"), [(1, 1), (2, 1), (4, 1), (4, 2), (4, 3)])
def test_pixels_are_exact_where_the_scale_is_a_whole_multiple_of_a_level(
    tmp_path: Path, composed: Composed, factor: int, stored: int
) -> None:
    pixels = enlarged(composed.pixels, factor)
    reader = open_slide(write_slide(tmp_path / "a.tif", pixels, 0.972 / factor, levels=stored))
    scale = scaled(reader)
    assert scale.grid.downsample == pytest.approx(factor)
    assert scale.level.index == min(stored - 1, int(np.log2(factor)))
    for patch, (y, x) in zip(composed.patches, composed.corners.tolist(), strict=True):
        region = Region(Point(x, y, scale.grid), Size(96, 96, scale.grid))
        np.testing.assert_array_equal(scale.read(region), patch)


@pytest.mark.parametrize("mpp", [0.5, 0.8, 1.7])
def test_a_resampled_pixel_does_not_depend_on_the_region_that_it_is_read_with(
    tmp_path: Path, composed: Composed, mpp: float
) -> None:
    reader = open_slide(write_slide(tmp_path / "a.tif", composed.pixels, mpp, levels=1))
    scale = scaled(reader)
    large = scale.read(Region(Point(0, 0, scale.grid), Size(200, 190, scale.grid)))
    assert large.shape == (190, 200, 3)
    small = scale.read(Region(Point(37, 51, scale.grid), Size(64, 80, scale.grid)))
    assert np.abs(large[51:131, 37:101].astype(int) - small).max() <= 1
    factor = 0.972 / mpp
    centre = composed.pixels[int(60 * factor) - 1 : int(60 * factor) + 2, int(70 * factor) - 1 : int(70 * factor) + 2]
    assert np.abs(large[60, 70] - centre.mean((0, 1))).max() < 60


def test_the_level_is_the_coarsest_that_is_fine_enough() -> None:
    for downsample, index, grid in ((4.0, 1, 4.0), (3.95, 1, 4.0), (8.1, 1, 8.0), (9.0, 1, 9.0), (3.0, 0, 3.0),
                                    (2.5, 0, 2.5), (20.0, 2, 20.0), (0.5, 0, 0.5), (1.01, 0, 1.0)):  # fmt: skip
        level, chosen = choose_level(levels(1.0, 4.0, 16.0), downsample)
        assert (level.index, chosen.downsample) == (index, grid), downsample


@pytest.mark.parametrize(
    ("properties", "mpp"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}, 0.25),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.27"}, 0.26),
        ({"tiff.ResolutionUnit": "centimeter", "tiff.XResolution": "20000", "tiff.YResolution": "20000"}, 0.5),
        ({"tiff.ResolutionUnit": "inch", "tiff.XResolution": "50800", "tiff.YResolution": "50800"}, 0.5),
        ({"tiff.ResolutionUnit": "inch", "tiff.XResolution": "72", "tiff.YResolution": "72"}, None),
        ({"tiff.ResolutionUnit": "none", "tiff.XResolution": "20000", "tiff.YResolution": "20000"}, None),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"}, None),
        ({"openslide.mpp-x": "nonsense", "openslide.mpp-y": "0.25"}, None),
        ({"openslide.mpp-x": "0", "openslide.mpp-y": "0"}, None),
        ({}, None),
    ],
)
def test_the_scale_comes_from_properties_or_from_the_tiffs_resolution(
    properties: dict[str, str], mpp: float | None
) -> None:
    assert read_mpp(properties) == (None if mpp is None else pytest.approx(mpp))


def test_a_slide_without_a_scale_is_refused_unless_it_is_given(tmp_path: Path, composed: Composed) -> None:
    reader = open_slide(write_slide(tmp_path / "a.tif", composed.pixels, None))
    with pytest.raises(SourceError, match=r"^a: the slide does not tell its pixel size.*--mpp 0.25"):
        slide_scale(reader, "a", 0.972)
    scale = slide_scale(reader, "a", 0.972, 0.972)
    assert (scale.mpp, scale.mpp_source, scale.grid) == (0.972, "--mpp", LEVEL_0)


@pytest.mark.parametrize(
    ("given", "model", "words"),
    [(0.5, 0.972, "--mpp 0.5 is used, though the slide tells 0.972"), (None, 0.25, "it is enlarged"), (0.9, 0.9, "")],
)
def test_a_mismatch_of_scales_is_said(
    tmp_path: Path, composed: Composed, given: float | None, model: float, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = open_slide(write_slide(tmp_path / "a.tif", composed.pixels, 0.972))
    with caplog.at_level(logging.WARNING, "pcam_model"):
        slide_scale(reader, "a", model, given)
    assert words in caplog.text if words else not caplog.text


def test_what_is_no_slide_is_one_sentence(tmp_path: Path, composed: Composed) -> None:
    (tmp_path / "text.svs").write_text("no slide")
    for name, words in (("text.svs", "OpenSlide cannot read it"), ("absent.svs", "there is no such file")):
        with pytest.raises(SourceError, match=words):
            open_slide(tmp_path / name)
    path = write_slide(tmp_path / "cut.tif", composed.pixels, levels=1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    reader_or_error: SlideReader | None = None
    with pytest.raises(SourceError, match=r"cut\.tif"):  # noqa: PT012 - opening or reading it fails, by TIFF's layout
        reader_or_error = open_slide(path)
        reader_or_error.read(reader_or_error.levels[0], Region(Point(0, 0), reader_or_error.levels[0].size))


def test_the_overview_is_the_whole_slide_in_pieces(
    tmp_path: Path, composed: Composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcam_model.slides.overview.SOURCE_SIDE", 128)
    reader = open_slide(write_slide(tmp_path / "a.tif", composed.pixels, levels=1))
    overview = read_overview(reader, 1.0)
    assert overview.grid == Grid(8.0)
    height, width = composed.pixels.shape[0] // 8, composed.pixels.shape[1] // 8
    expected = composed.pixels.reshape(height, 8, width, 8, 3).mean((1, 3))
    assert np.abs(overview.pixels - expected).max() <= 0.5 + 1e-9
