"""Masks of the user's own: QuPath's GeoJSON and pictures; what is none is refused in a sentence."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pcam_model.core.errors import SourceError
from pcam_model.slides import annotations
from pcam_model.slides.geometry import Grid
from pcam_model.slides.region_files import find_region_file, read_polygons, read_region_mask

SHAPE, GRID = (40, 60), Grid(8.0)
SQUARE = [[80, 80], [240, 80], [240, 240], [80, 240], [80, 80]]
HOLE = [[120, 120], [200, 120], [200, 200], [120, 200], [120, 120]]


def feature(*rings: list[list[int]]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": list(rings)}, "properties": {}}


def write(path: Path, content: Any) -> Path:
    text = json.dumps(content).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [feature(SQUARE, HOLE)]},
        [feature(SQUARE, HOLE)],
        feature(SQUARE, HOLE),
        {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE]]},
        {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [SQUARE, HOLE]}]},
    ],
)
@pytest.mark.parametrize("suffix", ["geojson", "geojson.gz"])
def test_polygons_with_holes_become_a_mask(tmp_path: Path, content: Any, suffix: str) -> None:
    mask = read_region_mask(write(tmp_path / f"a.{suffix}", content), SHAPE, GRID)
    assert mask.shape == SHAPE
    assert mask[12:14, 12:28].all()
    assert not mask[17:24, 17:24].any()
    assert not mask[:9].any()
    assert not mask[:, 32:].any()


def test_outlines_beyond_the_slide_are_clipped(tmp_path: Path) -> None:
    far = [[-500, -500], [80, -500], [80, 80], [-500, 80], [-500, -500]]
    away = [[5000, 5000], [5001, 5000], [5001, 5001], [5000, 5000]]
    mask = read_region_mask(write(tmp_path / "a.geojson", [feature(far), feature(away)]), SHAPE, GRID)
    assert mask[:10, :10].all()
    assert not mask[12:].any()


def test_an_outline_that_crosses_itself_is_mended_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bow = [[0, 0], [80, 80], [80, 0], [0, 80], [0, 0]]
    with caplog.at_level(logging.WARNING, "pcam_model"):
        polygons = read_polygons(write(tmp_path / "a.geojson", feature(bow)))
    assert sum(polygon.area for polygon in polygons) == pytest.approx(3200)
    assert "1 outlines cross themselves and were mended" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "no GeoJSON"),
        (b'"text"', "no GeoJSON"),
        (b"[" * 100_000, "no GeoJSON"),
        (b'{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "no GeoJSON"),
        (b'{"type": "FeatureCollection", "features": []}', "holds no polygon"),
        (b'{"type": "Point", "coordinates": [0, 0]}', "holds no polygon"),
    ],
)
def test_what_is_no_region_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.geojson").write_bytes(content)
    with pytest.raises(SourceError, match=words):
        read_region_mask(tmp_path / "a.geojson", SHAPE, GRID)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "MAX_BYTES", 2**20)
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(b" " * 2**22))
    with pytest.raises(SourceError, match="larger than 1 MB"):
        read_polygons(tmp_path / "a.geojson.gz")


def test_a_picture_of_any_size_is_a_mask(tmp_path: Path) -> None:
    picture = np.zeros((80, 120), np.uint8)
    picture[20:40, 60:90] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    mask = read_region_mask(tmp_path / "a.png", SHAPE, GRID)
    assert mask.sum() == 150
    assert mask[10:20, 30:45].all()
    Image.fromarray(picture[:, :60]).save(tmp_path / "b.png")
    with pytest.raises(SourceError, match="expected a picture of the whole slide"):
        read_region_mask(tmp_path / "b.png", SHAPE, GRID)
    (tmp_path / "c.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="it is no mask"):
        read_region_mask(tmp_path / "c.png", SHAPE, GRID)


def test_a_folder_has_one_mask_per_slide(tmp_path: Path) -> None:
    write(tmp_path / "a.geojson", feature(SQUARE))
    assert find_region_file(tmp_path, "a") == tmp_path / "a.geojson"
    assert find_region_file(tmp_path / "a.geojson", "b") == tmp_path / "a.geojson"
    with pytest.raises(SourceError, match=r"no mask of the slide b; expected b\.geojson"):
        find_region_file(tmp_path, "b")
