"""Outlines of tumour as GeoJSON for QuPath."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import require_package
from pcam_model.slides.geometry import LEVEL_0, Point
from pcam_model.slides.probability_map import ProbabilityMap
from pcam_model.slides.scores import cell_mm2

GEOJSON, COMPRESSED = "tumour.geojson", "tumour.geojson.gz"
MAX_PLAIN_BYTES = 20 * 10**6
TUMOUR = {"name": "Tumor", "color": [200, 0, 0]}
"""QuPath's own class of that name."""
DIGITS = 2


def tumour_features(probabilities: ProbabilityMap, threshold: float, mpp: float) -> list[dict[str, Any]]:
    """A GeoJSON feature for each connected group of cells at or above the threshold, in pixels of level 0.

    Cells are connected by their sides. The largest group is first.

    Args:
        probabilities: of the slide.
        threshold: the probability from which a cell is tumour.
        mpp: microns per pixel of level 0.
    """
    from scipy import ndimage

    with require_package("the outlines of tumour", extra="slides"):
        import shapely
    tumour = probabilities.is_tumour(threshold)
    groups, count = ndimage.label(tumour)
    boxes, owners = _runs(groups)
    shapes = shapely.box(*_on_level_0(probabilities, boxes))
    sizes = np.bincount(groups.ravel(), minlength=count + 1)[1:]
    limits = np.searchsorted(owners, np.arange(1, count + 2))
    values = probabilities.values[tumour][np.argsort(groups[tumour], kind="stable")]
    ends = np.cumsum(sizes)
    order = np.argsort(-sizes, kind="stable")
    return [
        _feature(
            shapely.union_all(shapes[limits[group] : limits[group + 1]]),
            values[ends[group] - sizes[group] : ends[group]],
            cell_mm2(probabilities, mpp),
        )
        for group in order
    ]


def tile_features(probabilities: ProbabilityMap) -> Iterator[dict[str, Any]]:
    """A GeoJSON feature for each predicted cell with its probability, as a tile of QuPath."""
    rows, columns = np.nonzero(~np.isnan(probabilities.values))
    boxes = np.stack([columns, rows, columns + 1, rows + 1], axis=1)
    corners = np.stack(_on_level_0(probabilities, boxes), axis=1).round(DIGITS).tolist()
    for (left, top, right, bottom), probability in zip(corners, probabilities.values[rows, columns], strict=True):
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "tile", "measurements": {"Tumour probability": round(float(probability), 6)}},
        }


def write_features(folder: Path, features: list[dict[str, Any]]) -> Path:
    """Write tumour.geojson into a folder, or tumour.geojson.gz where it is larger than 20 MB; returns its path."""
    content = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":")).encode()
    if len(content) <= MAX_PLAIN_BYTES:
        path = folder / GEOJSON
    else:
        path, content = folder / COMPRESSED, gzip.compress(content, 6, mtime=0)
    path.write_bytes(content)
    return path


def _runs(groups: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Horizontal runs of cells of one group: (left, top, right, bottom) of each (N, 4), and its group, sorted by it."""
    padded = np.pad(groups, ((0, 0), (1, 1)))
    edges = np.diff((padded > 0).astype(np.int8), axis=1)  # neighbours in a row are of one group
    rows, starts = np.nonzero(edges == 1)
    _, stops = np.nonzero(edges == -1)
    owners = groups[rows, starts].astype(np.int64)
    order = np.argsort(owners, kind="stable")
    return np.stack([starts, rows, stops, rows + 1], axis=1)[order], owners[order]


def _on_level_0(probabilities: ProbabilityMap, boxes: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Left, top, right and bottom of boxes of cells (N, 4), each (N,), in pixels of level 0."""
    tiling = probabilities.tiling
    origin, step = tiling.cell_origin.on(LEVEL_0), Point(tiling.stride, 0, tiling.grid).on(LEVEL_0).x
    return [edge * step + origin.x for edge in boxes.T]


def _feature(shape: Any, values: NDArray[np.float32], area_mm2: float) -> dict[str, Any]:
    measurements = {
        "Mean tumour probability": round(float(values.mean(dtype=np.float64)), 6),
        "Maximum tumour probability": round(float(values.max()), 6),
        "Area mm^2": round(len(values) * area_mm2, 6),
    }
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [_ring(shape.exterior), *map(_ring, shape.interiors)]},
        "properties": {"objectType": "annotation", "classification": TUMOUR, "measurements": measurements},
    }


def _ring(ring: Any) -> list[list[float]]:
    return [[round(x, DIGITS), round(y, DIGITS)] for x, y in ring.simplify(0).coords]
