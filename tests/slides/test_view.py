"""`slides.html`: the tiles of a slide are the slide, and the page shows them in a browser, from the disk."""

import base64
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from slide_files import Composed, compose, enlarged, write_slide

from pcam_model.inference.predictor import Predictor
from pcam_model.slides.batch import predict_slides
from pcam_model.slides.listing import find_slides
from pcam_model.slides.open_slide import open_slide
from pcam_model.slides.prediction import SlideModel
from pcam_model.slides.records import SlideBatch, SlideOptions
from pcam_model.slides.slides_page import render_slides_page
from pcam_model.slides.tile_pyramid import TILE, TilePyramid, write_tiles
from pcam_model.slides.view import _block_maximum
from tests.evaluation.chromium import Chromium, chromium, find_chromium

PROGRAM = find_chromium()
in_a_browser = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
HOSTILE = "<img src=x onerror=alert(1)> 100% #1"


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def stitched(folder: Path, level: int) -> np.ndarray:
    """A level put together from its tiles."""
    names = [tuple(map(int, path.stem.split("_"))) for path in (folder / str(level)).iterdir()]
    columns, rows = (max(axis) + 1 for axis in zip(*names, strict=True))
    assert len(names) == columns * rows
    lines = [
        np.concatenate([pixels_of(folder / str(level) / f"{column}_{row}.jpg") for column in range(columns)], axis=1)
        for row in range(rows)
    ]
    return np.concatenate(lines)


def tiles_of(slide: Path, folder: Path, mpp: float, finest_mpp: float) -> TilePyramid:
    reader = open_slide(slide)
    try:
        return write_tiles(folder, reader, mpp, finest_mpp)
    finally:
        reader.close()


def test_each_level_is_the_slide_at_half_of_the_finer_ones_size(tmp_path: Path) -> None:
    pixels = enlarged(compose(rows=9, columns=13).pixels, 1)[:1101, :1607]
    slide = write_slide(tmp_path / "a.tif", pixels, 0.972)
    pyramid = tiles_of(slide, tmp_path / "view", 0.972, 1)
    assert (pyramid.width, pyramid.height, pyramid.levels, pyramid.mpp) == (1607, 1101, 3, 0.972)
    assert sorted(path.name for path in (tmp_path / "view").iterdir()) == ["0", "1", "2"]
    for level, size in enumerate([(276, 402), (551, 804), (1101, 1607)]):
        found = stitched(tmp_path / "view", level)
        assert found.shape[:2] == size
        factor = 4 >> level
        even = np.pad(pixels, ((0, -1101 % factor), (0, -1607 % factor), (0, 0)), mode="edge")
        expected = np.asarray(Image.fromarray(even).reduce(factor)).astype(int)
        off_by_one = np.abs(found[:, 1:] - expected[:, :-1]).mean()
        assert np.abs(found - expected).mean() < off_by_one / 2  # JPEG's loss
    assert max(pixels_of(path).shape[1] for path in (tmp_path / "view").rglob("*.jpg")) == TILE


@pytest.mark.parametrize(("mpp", "finest", "kept"), [(0.25, 4, 4.0), (0.243, 4, 3.888), (0.5, 4, 4.0), (8.0, 4, 8.0)])
def test_the_finest_level_is_as_fine_as_asked_or_finer(
    composed: Composed, tmp_path: Path, mpp: float, finest: float, kept: float
) -> None:
    slide = write_slide(tmp_path / "a.tif", composed.pixels, mpp)
    assert tiles_of(slide, tmp_path / "view", mpp, finest).mpp == pytest.approx(kept)


def test_the_largest_probability_of_a_square_is_kept() -> None:
    values = np.full((5, 7), np.nan, np.float32)
    values[1, 2], values[4, 6] = 0.9, 0.2
    reduced = _block_maximum(values, 3)
    assert reduced.shape == (2, 3)
    assert reduced[0, 0] == np.float32(0.9)
    assert reduced[1, 2] == np.float32(0.2)
    assert np.isnan(reduced).sum() == 4


@pytest.fixture(scope="module")
def results(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SlideBatch]:
    """The folder of three slides' results: two that were predicted, and a broken one."""
    folder = tmp_path_factory.mktemp("view")
    (folder / "in").mkdir()
    write_slide(folder / "in" / "a.tif", compose(rows=6, columns=9).pixels)
    write_slide(folder / "in" / "b #1 50%.tif", compose(seed=4).pixels)
    (folder / "in" / "broken.svs").write_bytes(b"no slide")
    model = SlideModel(predictor, SlideOptions(tissue_mask=False, view_mpp=1))
    return folder / "out", predict_slides(find_slides([folder / "in"]), model, folder / "out")


def data(out: Path, name: str) -> dict[str, Any]:
    text = (out / name / "view" / "slide.js").read_text()
    found = re.fullmatch(r"showSlide\((.*)\);\n", text)
    assert found
    return json.loads(found[1])


def test_heatmap_and_outlines_lie_on_the_slide(results: tuple[Path, SlideBatch]) -> None:
    out, batch = results
    view = data(out, "a")
    assert (view["name"], view["width"], view["height"]) == ("a", 9 * 128 + 32, 6 * 128 + 32)
    columns, rows = (int(view[side] - 96) // 32 + 1 for side in ("width", "height"))
    assert view["heatmap"]["x"] == pytest.approx(32 / view["width"])
    assert view["heatmap"]["width"] == pytest.approx(columns * 32 / view["width"])
    layer = pixels_of(out / "a" / "view" / "heatmap.png")
    assert layer.shape == (rows * 8, columns * 8, 4)
    table = pd.read_parquet(out / "a" / "probabilities.parquet").sort_values(["y", "x"])
    probabilities = table["probability"].to_numpy().reshape(rows, columns)
    opacity = layer[4::8, 4::8, 3] / 255
    assert np.abs(opacity - np.clip(2 * probabilities, 0.2, 1)).max() < 0.01
    features = json.loads((out / "a" / "tumour.geojson").read_text())["features"]
    assert view["all_outlines"] == view["shown_outlines"] == len(features)
    assert view["outlines"].count("Z") == sum(len(feature["geometry"]["coordinates"]) for feature in features)
    result = next(each for each in batch.results if each.name == "a")
    assert {"view/slide.js", "view/heatmap.png", "view/0/0_0.jpg", "view/1/1_0.jpg"} <= set(result.files)


def test_names_and_reasons_are_text(results: tuple[Path, SlideBatch]) -> None:
    batch = results[1]
    hostile = batch.results[0].model_copy(update={"name": HOSTILE})
    failure = batch.failures[0].model_copy(update={"reason": HOSTILE})
    page = render_slides_page(SlideBatch(results=(hostile,), failures=(failure,), cached=0)).decode()
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x") == 2
    assert 'data-folder="./%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E%20100%25%20%231"' in page


def test_what_cannot_be_read_is_listed(results: tuple[Path, SlideBatch]) -> None:
    page = (results[0] / "slides.html").read_text()
    assert "2 slides, 1 could not be predicted" in page
    assert "<dt>broken</dt>" in page
    assert "OpenSlide cannot read it" in page


def test_without_views_there_is_a_table_and_no_script(predictor: Predictor, composed: Composed, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a.tif", composed.pixels)
    predict_slides(find_slides([slide]), SlideModel(predictor, SlideOptions(view_mpp=0)), tmp_path / "out")
    page = (tmp_path / "out" / "slides.html").read_text()
    assert "<script" not in page
    assert "./a/heatmap.png" in page
    assert not (tmp_path / "out" / "a" / "view").exists()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    assert PROGRAM is not None
    with chromium(PROGRAM, tmp_path_factory.mktemp("profile")) as page:
        yield page


def wait_for(browser: Chromium, condition: str) -> None:
    """Wait until a condition holds in the page."""
    browser.value(
        f"""new Promise((done, failed) => {{
          const began = Date.now();
          const late = () => failed(new Error({json.dumps(condition)}));
          const look = () => ({condition}) ? done(1) : Date.now() - began > 20000 ? late() : setTimeout(look, 20);
          look();
        }})"""
    )


def colour_once(browser: Chromium, condition: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The mean colour of the viewer as soon as it meets a condition, within 20 s."""
    deadline = time.monotonic() + 20
    while not condition(colour := mean_colour(browser)):
        assert time.monotonic() < deadline, colour
        time.sleep(0.05)
    return colour


def mean_colour(browser: Chromium) -> np.ndarray:
    """The mean red, green and blue of the viewer, from 0 to 255."""
    box = browser.value(
        "(b => [b.x + scrollX, b.y + scrollY, b.width, b.height])"
        "(document.getElementById('viewer').getBoundingClientRect())"
    )
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
    content = browser.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).mean((0, 1))


@in_a_browser
@pytest.mark.parametrize("width", [1280, 360])
def test_a_slide_is_shown_from_the_disk_without_network(
    results: tuple[Path, SlideBatch], browser: Chromium, width: int
) -> None:
    out, batch = results
    browser.open((out / "slides.html").as_uri(), width)
    first, second = (result.name for result in batch.ranked)
    wait_for(browser, f"document.getElementById('shown').textContent === {json.dumps(first)}")
    wait_for(browser, "document.querySelectorAll('#viewer svg path').length === 1")
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    shown = colour_once(browser, lambda colour: np.ptp(colour) > 3)  # the slide is purple, an empty viewer white
    requested = {event["request"]["url"] for event in browser.events_of("Network.requestWillBeSent")}
    assert all(address.startswith(("file:", "data:", "blob:")) for address in requested)
    assert any(address.endswith("/view/0/0_0.jpg") for address in requested)

    browser.value("(e => { e.value = 100; e.dispatchEvent(new Event('input')); })(document.getElementById('opacity'))")
    colour_once(browser, lambda colour: np.abs(colour - shown).max() > 5)
    browser.value("document.getElementById('outlined').click()")
    assert browser.value("document.querySelector('#viewer svg').style.visibility") == "hidden"

    before = browser.value("document.getElementById('scale').textContent")
    for _ in range(3):
        browser.value("document.getElementById('zoom-in').click()")
    wait_for(browser, f"document.getElementById('scale').textContent !== {json.dumps(before)}")
    browser.value("[...document.querySelectorAll('button.show')][1].click()")
    wait_for(browser, f"document.getElementById('shown').textContent === {json.dumps(second)}")
    assert browser.value("document.querySelector('tr.current button').textContent") == second
    assert browser.events_of("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []
