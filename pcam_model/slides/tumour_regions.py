"""Where a slide's annotations show tumour: as cells of a tiling, and as a mask."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from pcam_model.core.errors import SourceError, require_package
from pcam_model.data.annotation_classes import IGNORED_CLASSES, NORMAL_CLASSES, TUMOUR_CLASSES
from pcam_model.data.image import CENTRE_SIZE, PATCH_SIZE
from pcam_model.slides.annotations import GEOJSON_SUFFIXES, XML_SUFFIXES, is_annotation_file, read_annotations
from pcam_model.slides.geometry import LEVEL_0, Grid, Size
from pcam_model.slides.listing import SlideFile
from pcam_model.slides.mask_file import MaskFile
from pcam_model.slides.region_files import rasterize
from pcam_model.slides.tiling import Indices, Mask, Tiling

MASK_STEMS = ("{}_mask", "{}_Mask", "{}")
MASK_SUFFIXES = (".tif", ".tiff", ".png")


class AnnotationClasses(NamedTuple):
    """Names of classes by what they mean, in any case."""

    tumour: tuple[str, ...] = TUMOUR_CLASSES
    normal: tuple[str, ...] = NORMAL_CLASSES
    ignored: tuple[str, ...] = IGNORED_CLASSES


class TumourRegions(Protocol):
    """The annotated tumour of a slide."""

    def tumour_cells(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:
        """A `Selection` of the patches whose centre 32x32 holds tumour."""

    def normal_cells(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:
        """A `Selection` of the patches whose centre is within an annotation of normal tissue."""

    def ignored_cells(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:
        """A `Selection` of the patches whose centre holds what is ignored."""

    def mask(self, shape: tuple[int, int], grid: Grid) -> Mask:
        """The tumour as bool (H, W) of this shape on the pixels of a grid."""


class PolygonRegions:
    """`TumourRegions` of outlines: tumour less what is annotated as normal within it."""

    def __init__(self, tumour: Sequence[Any], normal: Sequence[Any] = (), ignored: Sequence[Any] = ()) -> None:
        """Polygons of shapely, in pixels of level 0."""
        import shapely

        inside = shapely.union_all(list(tumour)).difference(shapely.union_all(list(normal)))
        parts = shapely.get_parts(inside).tolist()
        self._tumour = [part for part in parts if part.geom_type == "Polygon"]
        self._normal, self._ignored = list(normal), list(ignored)

    def tumour_cells(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:
        """See `TumourRegions`."""
        return centres_in(self._tumour, tiling, rows, columns)

    def normal_cells(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:
        """See `TumourRegions`."""
        return centres_in(self._normal, tiling, rows, columns)

    def ignored_cells(self, tiling: Tiling, rows: Indices, columns: Indices) -> Mask:
        """See `TumourRegions`."""
        return centres_in(self._ignored, tiling, rows, columns)

    def mask(self, shape: tuple[int, int], grid: Grid) -> Mask:
        """See `TumourRegions`."""
        return rasterize(self._tumour, shape, grid)


def centres_in(polygons: Iterable[Any], tiling: Tiling, rows: Indices, columns: Indices) -> Mask:
    """The patches in R rows and C columns with a pixel of their centre 32x32 in a polygon, bool (R, C)."""
    with require_package("annotations", extra="slides"):
        import shapely
    found = np.zeros((len(rows), len(columns)), bool)
    scale, start = tiling.grid.downsample / LEVEL_0.downsample, (PATCH_SIZE - CENTRE_SIZE) / 2 + 0.5
    # From the middle of the centre's first pixel to that of its last: an outline that only touches it is outside.
    top, left = ((indices * tiling.stride + start) * scale for indices in (rows, columns))
    side = (CENTRE_SIZE - 1) * scale
    for polygon in polygons:
        west, north, east, south = polygon.bounds
        row = np.flatnonzero((top + side >= north) & (top <= south))
        column = np.flatnonzero((left + side >= west) & (left <= east))
        if len(row) and len(column):
            shapely.prepare(polygon)
            y, x = np.meshgrid(top[row], left[column], indexing="ij")
            found[np.ix_(row, column)] |= shapely.intersects(polygon, shapely.box(x, y, x + side, y + side))
    return found


def read_regions(path: Path, slide_size: Size, classes: AnnotationClasses) -> TumourRegions:
    """The tumour of an annotation file: a GeoJSON of QuPath, an XML of ASAP, or a mask that is black without tumour.

    Raises:
        SourceError: it cannot be read, or names a class that has no meaning.
    """
    if not is_annotation_file(path):
        return MaskFile(path, slide_size)
    polygons: dict[str, list[Any]] = {meaning: [] for meaning in AnnotationClasses._fields}
    unknown: set[str] = set()
    for name, polygon in read_annotations(path):
        meaning = next((each for each in polygons if name.lower() in map(str.lower, getattr(classes, each))), None)
        if meaning is None:
            unknown.add(name or "(no class)")
        else:
            polygons[meaning].append(polygon)
    if unknown:
        known = "; ".join(f"{meaning}: {', '.join(getattr(classes, meaning))}" for meaning in polygons)
        raise SourceError(
            f"{path}: it has annotations of the class {', '.join(sorted(unknown))}, whose meaning is not known ({known}"
            "); name it as tumour, normal or ignored, or give the annotation another class"
        )
    return PolygonRegions(polygons["tumour"], polygons["normal"], polygons["ignored"])


def find_annotation_file(slide: SlideFile, folder: Path | None = None) -> Path | None:
    """The annotations of a slide by its name, in a folder, or beside the slide; None where there are none."""
    file = Path(slide.path)
    where, stems = (folder, [slide.name]) if folder else (file.parent, [slide.name, file.stem])
    outlines = (f"{stem}{suffix}" for stem in stems for suffix in (*GEOJSON_SUFFIXES, *XML_SUFFIXES))
    masks = (f"{kind.format(stem)}{suffix}" for stem in stems for kind in MASK_STEMS for suffix in MASK_SUFFIXES)
    candidates = (where / name for name in (*outlines, *masks))
    return next((path for path in candidates if path.is_file() and path.absolute() != file.absolute()), None)
