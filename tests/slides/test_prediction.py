"""A slide's probabilities are those of its patches, its files are what viewers open, and it is predicted once."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import shapely
from PIL import Image
from shapely.geometry import shape
from slide_files import Composed, enlarged, write_slide

from pcam_model.core.errors import ConfigError
from pcam_model.inference.predictor import Predictor
from pcam_model.slides.batch import SlideBatch, predict_slides
from pcam_model.slides.geometry import LEVEL_0, Grid
from pcam_model.slides.listing import SlideFile, find_slides
from pcam_model.slides.patch_stream import PatchPredictions
from pcam_model.slides.prediction import SlideModel
from pcam_model.slides.probability_map import ProbabilityMap
from pcam_model.slides.records import SlideOptions, SlideResult
from pcam_model.slides.tiling import Tiling, blocks, count_patches, every_patch

FILES = {"heatmap.png", "heatmap.tif", "probabilities.parquet", "slide.json", "tissue.png", "tumour.geojson", "view"}


def run(predictor: Predictor, slide: Path, out: Path, batch_size: int = 0, **options: object) -> SlideBatch:
    model = SlideModel(predictor, SlideOptions.model_validate(options), batch_size)
    return predict_slides(find_slides([slide]), model, out)


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "probabilities.parquet")


def features(folder: Path) -> list[dict]:
    return json.loads((folder / "tumour.geojson").read_text())["features"]


@pytest.fixture(scope="module")
def results(predictor: Predictor, composed: Composed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the composed slide's results; median probability as threshold, so that there is tumour."""
    folder = tmp_path_factory.mktemp("results")
    slide = write_slide(folder / "a.tif", composed.pixels)
    probabilities = predictor(composed.patches).probabilities
    middle = predictor.model.model_copy(update={"threshold": float(np.median(probabilities))})
    content = {"model": middle, "batch_size": 16, "precision": "float32"}
    backend = type("Backend", (), content | {"__call__": lambda _, *a: predictor.backend(*a)})()
    batch = run(Predictor(backend, predictor.backend_choice, tta=False), slide, folder / "out")
    assert not batch.failures
    return folder / "out" / "a"


@pytest.mark.parametrize("factor", [1, 4])
@pytest.mark.parametrize("stride", [32, 64])
def test_probabilities_are_those_of_the_same_patches(
    predictor: Predictor, composed: Composed, tmp_path: Path, factor: int, stride: int
) -> None:
    slide = write_slide(tmp_path / "a.tif", enlarged(composed.pixels, factor), 0.972 / factor, levels=2)
    batch = run(predictor, slide, tmp_path / "out", batch_size=7, stride=stride, tissue_mask=False)
    assert batch.results[0].patches == (15 * 11 if stride == 32 else 8 * 6)
    rows = table(tmp_path / "out" / "a").set_index(["x", "y"])["probability"]
    assert rows.index.is_unique
    expected = predictor(composed.patches).probabilities
    on_grid = [(y % stride, x % stride) == (0, 0) for y, x in composed.corners]
    assert sum(on_grid) == (12 if stride == 32 else 0)
    for (y, x), probability, is_there in zip(composed.corners, expected, on_grid, strict=True):
        if is_there:
            assert abs(rows[(x + 48) * factor, (y + 48) * factor] - probability) < 1e-6
    y, x = 64, 128
    patch = composed.pixels[y : y + 96, x : x + 96]
    assert abs(rows[(x + 48) * factor, (y + 48) * factor] - predictor(patch).probabilities[0]) < 1e-6


def test_each_slide_has_its_files_and_a_record_that_counts_them(results: Path, composed: Composed) -> None:
    assert {path.name for path in results.iterdir()} == FILES
    record = SlideResult.model_validate_json((results / "slide.json").read_bytes())
    rows = table(results)
    assert record.patches == len(rows) > 100
    height, width = composed.pixels.shape[:2]
    assert (record.width, record.height, record.vendor, record.mpp_source) == (width, height, "generic-tiff", "slide")
    assert record.patch_mpp == pytest.approx(0.972, rel=1e-5)
    top = np.sort(rows["probability"])[::-1]
    tumour = top >= record.threshold
    assert record.scores.maximum == pytest.approx(top[0])
    assert record.scores.top_mean == pytest.approx(top[:10].mean())
    assert record.scores.tumour_fraction == pytest.approx(tumour.mean())
    assert record.scores.tumour_mm2 == pytest.approx(tumour.sum() * (32 * 0.972e-3) ** 2, rel=1e-4)
    assert record.tissue_mm2 is not None
    assert 12 * (96 * 0.972e-3) ** 2 * 0.8 < record.tissue_mm2 < 12 * (96 * 0.972e-3) ** 2 * 1.4
    with (results.parent / "slides.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == "a"
    assert float(row["maximum"]) == pytest.approx(record.scores.maximum, rel=1e-5)


def test_outlines_cover_exactly_the_cells_that_are_tumour(results: Path) -> None:
    record = SlideResult.model_validate_json((results / "slide.json").read_bytes())
    rows = table(results)
    tumour = rows[rows["probability"] >= record.threshold]
    x, y = tumour["x"].to_numpy(), tumour["y"].to_numpy()
    cells = shapely.union_all(shapely.box(x - 16, y - 16, x + 16, y + 16))
    shapes = [shape(feature["geometry"]) for feature in features(results)]
    assert all(outline.is_valid for outline in shapes)
    assert shapely.union_all(shapes).symmetric_difference(cells).area < 1e-6
    assert sum(outline.area for outline in shapes) == pytest.approx(cells.area)
    for feature, outline in zip(features(results), shapes, strict=True):
        inside = tumour[shapely.contains_xy(outline, x, y)]
        measurements = feature["properties"]["measurements"]
        assert measurements["Area mm^2"] == pytest.approx(outline.area * 0.972e-3**2, rel=1e-3)
        assert measurements["Maximum tumour probability"] == pytest.approx(inside["probability"].max(), abs=1e-6)
        assert measurements["Mean tumour probability"] == pytest.approx(inside["probability"].mean(), abs=1e-6)
        assert feature["properties"]["objectType"] == "annotation"
        assert feature["properties"]["classification"]["name"] == "Tumor"
    areas = [outline.area for outline in shapes]
    assert areas == sorted(areas, reverse=True)


def test_the_heatmap_is_a_slide_of_the_same_place_and_a_picture(results: Path, composed: Composed) -> None:
    heatmap = openslide.OpenSlide(results / "heatmap.tif")
    assert float(heatmap.properties["openslide.mpp-x"]) == pytest.approx(32 * 0.972, rel=1e-4)
    pixels = np.asarray(heatmap.read_region((0, 0), 0, heatmap.dimensions))[..., :3]
    heatmap.close()
    for x, y in zip(table(results)["x"], table(results)["y"], strict=True):
        assert tuple(pixels[y // 32, x // 32]) != (255, 255, 255)
    height, width = composed.pixels.shape[:2]
    with Image.open(results / "heatmap.png") as picture, Image.open(results / "tissue.png") as tissue:
        assert picture.width / picture.height == pytest.approx(width / height, rel=0.05)
        mask = np.asarray(tissue)
    assert mask.dtype == bool
    assert 0.3 < mask.mean() < 0.8


def test_a_large_heatmap_has_a_pyramid(tmp_path: Path) -> None:
    from pcam_model.slides.heatmap import write_pyramid

    tiling = Tiling(Grid(4.0), 32, 700, 900)
    write_pyramid(tmp_path / "h.tif", ProbabilityMap(tiling, np.full((700, 900), 0.5, np.float32)), 0.243)
    with openslide.OpenSlide(tmp_path / "h.tif") as heatmap:
        assert heatmap.level_downsamples == pytest.approx([1, 2, 4], rel=0.01)
        assert float(heatmap.properties["openslide.mpp-x"]) == pytest.approx(32 * 4 * 0.243, rel=1e-4)
        assert heatmap.read_region((100, 100), 2, (1, 1)).getpixel((0, 0))[:3] == (188, 55, 84)


def test_groups_of_cells_that_touch_at_corners_and_have_holes_are_valid_outlines() -> None:
    from pcam_model.slides.outlines import tumour_features

    random = np.random.default_rng(4)
    for stride in (32, 96):
        values = np.where(random.random((40, 50)) < 0.55, 0.9, 0.1).astype(np.float32)
        values[random.random((40, 50)) < 0.1] = np.nan
        tiling = Tiling(Grid(1.5), stride, 40, 50)
        found = [shape(each["geometry"]) for each in tumour_features(ProbabilityMap(tiling, values), 0.5, 0.5)]
        assert all(outline.geom_type == "Polygon" and outline.is_valid for outline in found)
        assert any(outline.interiors for outline in found)
        side = tiling.cell_size.on(LEVEL_0).width
        assert sum(outline.area for outline in found) == pytest.approx((values >= 0.5).sum() * side**2)
        assert shapely.union_all(found).area == pytest.approx((values >= 0.5).sum() * side**2)


def test_tiles_are_written_where_they_are_asked_for(predictor: Predictor, composed: Composed, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a.tif", composed.pixels)
    (result,) = run(predictor, slide, tmp_path / "out", tiles=True, stride=64).results
    tiles = [each for each in features(tmp_path / "out/a") if each["properties"]["objectType"] == "tile"]
    assert len(tiles) == result.patches
    assert {shape(tile["geometry"]).area for tile in tiles} == {64.0 * 64.0}


def test_large_geojson_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pcam_model.slides import outlines

    monkeypatch.setattr(outlines, "MAX_PLAIN_BYTES", 100)
    assert outlines.write_features(tmp_path, []).name == "tumour.geojson"
    path = outlines.write_features(tmp_path, [{"type": "Feature", "note": "x" * 200}])
    assert path.name == "tumour.geojson.gz"


def test_what_is_done_is_not_done_again_and_what_has_changed_is(
    predictor: Predictor, composed: Composed, tmp_path: Path
) -> None:
    slide, out = write_slide(tmp_path / "a.tif", composed.pixels), tmp_path / "out"
    first = run(predictor, slide, out, stride=64)
    written = (out / "a" / "slide.json").stat().st_mtime_ns
    again = run(predictor, slide, out, stride=64)
    assert (first.cached, again.cached) == (0, 1)
    assert again.results == first.results
    assert (out / "a" / "slide.json").stat().st_mtime_ns == written
    assert run(predictor, slide, out, stride=96).cached == 0
    assert run(Predictor(predictor.backend, predictor.backend_choice, tta=True), slide, out, stride=96).cached == 0
    for change in (
        lambda: os.utime(slide, (1, 1)),
        lambda: (out / "a" / "heatmap.tif").unlink(),
        lambda: (out / "a" / "heatmap.png").write_bytes(b""),
    ):
        change()
        assert run(predictor, slide, out, stride=96).cached == 0
        assert run(predictor, slide, out, stride=96).cached == 1
    assert sorted(path.name for path in out.iterdir()) == ["a", "slides.csv", "slides.html"]


def test_an_interrupted_slide_leaves_no_half_result(
    predictor: Predictor, composed: Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide, out = write_slide(tmp_path / "a.tif", composed.pixels), tmp_path / "out"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pcam_model.slides.prediction.write_pyramid", stop)
        with pytest.raises(KeyboardInterrupt):
            run(predictor, slide, out, stride=64)
    assert not (out / "a").exists()
    assert run(predictor, slide, out, stride=64).cached == 0


def test_a_folder_that_is_no_result_is_never_removed(predictor: Predictor, composed: Composed, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a.tif", composed.pixels)
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no result of a slide"):
        run(predictor, slide, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "mine.txt").read_text() == "mine"


def test_slides_that_cannot_be_predicted_are_listed_and_the_rest_is_done(
    predictor: Predictor, composed: Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_slide(folder / "good.tif", composed.pixels)
    write_slide(folder / "fine.tif", composed.pixels[:300])
    write_slide(folder / "unscaled.tif", composed.pixels, None)
    write_slide(folder / "small.tif", composed.pixels[:90])
    write_slide(folder / "glass.tif", np.full_like(composed.pixels, 244))
    (folder / "text.svs").write_text("no slide")
    (folder / "empty.ndpi").write_bytes(b"")
    model = SlideModel(predictor, SlideOptions(stride=96))
    files = [*find_slides([folder]), SlideFile(name="absent", path=str(tmp_path / "absent.svs"))]
    batch = predict_slides(files, model, tmp_path / "out")
    assert {result.name for result in batch.results} == {"good", "fine"}
    reasons = {failure.name: failure.reason for failure in batch.failures}
    for name, words in {
        "unscaled": "does not tell its pixel size",
        "small": "has 544 x 90 pixels at the model's scale, and a patch has 96 x 96",
        "glass": "no tissue was found; --no-tissue-mask",
        "text": "OpenSlide cannot read it",
        "empty": "OpenSlide cannot read it",
        "absent": "cannot be read (No such file or directory)",
    }.items():
        assert words in reasons.pop(name), name
    assert not reasons
    with (tmp_path / "out" / "slides.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows if not row["reason"]] in (["good", "fine"], ["fine", "good"])
    assert sum(bool(row["reason"]) for row in rows) == 6

    def fault(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("pcam_model.slides.prediction.write_picture", fault)
    again = predict_slides(files, SlideModel(predictor, SlideOptions(stride=64)), tmp_path / "out")
    assert {failure.reason for failure in again.failures} >= {"RuntimeError: a fault of ours"}


def test_a_mask_of_ones_own_takes_the_tissues_place(predictor: Predictor, composed: Composed, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a.tif", composed.pixels)
    ring = [[160, 32], [256, 32], [256, 128], [160, 128], [160, 32]]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    (result,) = run(predictor, slide, tmp_path / "out", mask=str(tmp_path / "a.geojson")).results
    rows = table(tmp_path / "out" / "a")
    assert 0 < result.patches < 30
    assert ((rows["x"] > 130) & (rows["x"] < 290) & (rows["y"] < 160)).all()
    assert run(predictor, slide, tmp_path / "out", mask=str(tmp_path)).cached == 1
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [[*ring[:2], ring[0]]]}))
    assert run(predictor, slide, tmp_path / "out", mask=str(tmp_path)).failures


def test_every_patch_is_in_one_block_and_blocks_are_bounded() -> None:
    tiling = Tiling(Grid(1.0), 32, 37, 53)
    seen = np.zeros((37, 53), int)
    for block in blocks(tiling, 10, every_patch):
        assert max(block.region.size.width, block.region.size.height) <= 9 * 32 + 96
        for row, column, (y, x) in zip(block.rows, block.columns, block.offsets, strict=True):
            seen[row, column] += 1
            assert (block.region.origin.x + x, block.region.origin.y + y) == (column * 32, row * 32)
    assert (seen == 1).all()
    assert count_patches(tiling, every_patch) == 37 * 53


def test_a_map_without_tumour_has_no_outline() -> None:
    from pcam_model.slides.outlines import tumour_features

    probabilities = ProbabilityMap.empty(Tiling(Grid(1.0), 32, 4, 5))
    assert tumour_features(probabilities, 0.5, 1.0) == []
    probabilities.add(PatchPredictions(np.array([1]), np.array([2]), np.array([0.7], np.float32)))
    (feature,) = tumour_features(probabilities, 0.5, 1.0)
    assert shape(feature["geometry"]).bounds == (96, 64, 128, 96)
