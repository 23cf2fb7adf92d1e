"""Regions that a user gives in place of the tissue mask: QuPath's GeoJSON, ASAP's XML, or a picture."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pcam_model.core.errors import SourceError
from pcam_model.slides.annotations import GEOJSON_SUFFIXES, XML_SUFFIXES, is_annotation_file, read_annotations
from pcam_model.slides.geometry import LEVEL_0, Grid
from pcam_model.slides.tiling import Mask

PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg")
MAX_ASPECT_ERROR = 0.02


def find_region_file(path: Path, slide: str) -> Path:
    """The file itself, or in a folder the one with the slide's name. Raises SourceError where there is none."""
    if not path.is_dir():
        return path
    for suffix in (*GEOJSON_SUFFIXES, *XML_SUFFIXES, *PICTURE_SUFFIXES):
        if (path / f"{slide}{suffix}").is_file():
            return path / f"{slide}{suffix}"
    raise SourceError(f"{path}: there is no mask of the slide {slide}; expected {slide}.geojson or {slide}.png")


def read_region_mask(path: Path, shape: tuple[int, int], grid: Grid) -> Mask:
    """The mask of the polygons of a GeoJSON or an ASAP XML, in pixels of level 0, or of a picture's light pixels.

    Args:
        path: the file; a picture shows the whole slide, in any size.
        shape: height and width of the mask.
        grid: of its pixels.

    Raises:
        SourceError: the file cannot be read, holds no polygon, or is a picture of another shape.
    """
    if is_annotation_file(path):
        return rasterize(read_polygons(path), shape, grid)
    try:
        with Image.open(path) as image:
            require_aspect(path, image.size, shape)
            picture = image.convert("L").resize(shape[::-1], Image.Resampling.NEAREST)
    except (OSError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path}: it is no mask ({error}); expected a picture, or a .geojson of QuPath") from error
    return np.asarray(picture) > 127


def read_polygons(path: Path) -> list[Any]:
    """The polygons of a GeoJSON or an ASAP XML, whatever their class; see `annotations.read_annotations`.

    Raises:
        SourceError: it is neither of them, or holds no polygon.
    """
    polygons = [annotation.polygon for annotation in read_annotations(path)]
    if not polygons:
        raise SourceError(f"{path}: it holds no polygon; draw the region as an annotation in QuPath and export it")
    return polygons


def rasterize(polygons: list[Any], shape: tuple[int, int], grid: Grid) -> Mask:
    """Polygons in pixels of level 0, as a mask of height and width `shape` on the pixels of `grid`."""
    mask = np.zeros(shape, bool)
    ratio = LEVEL_0.downsample / grid.downsample
    for polygon in polygons:
        left, top, right, bottom = (bound * ratio for bound in polygon.bounds)
        x, y = max(int(left), 0), max(int(top), 0)
        width, height = min(int(right) + 1, shape[1]) - x, min(int(bottom) + 1, shape[0]) - y
        if width < 1 or height < 1:  # outside of the slide
            continue
        image = Image.new("1", (width, height))
        draw = ImageDraw.Draw(image)
        for ring, value in [(polygon.exterior, 1), *((hole, 0) for hole in polygon.interiors)]:
            draw.polygon([(px * ratio - x, py * ratio - y) for px, py, *_ in ring.coords], fill=value)
        mask[y : y + height, x : x + width] |= np.asarray(image)
    return mask


def require_aspect(path: Path, size: tuple[int, int], shape: tuple[int, int]) -> None:
    """Raise SourceError where a mask of `size` (width, height) does not show all of a `shape` (height, width)."""
    width, height = size
    expected = shape[1] / shape[0]
    if abs(width / height / expected - 1) > MAX_ASPECT_ERROR + 1 / min(width, height):
        raise SourceError(
            f"{path}: the mask has {width} x {height} pixels, and the slide is {expected:.3f} times as wide as high; "
            "expected a picture of the whole slide"
        )
