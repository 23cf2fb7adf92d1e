"""Annotations of a slide: polygons with the names of their classes, from QuPath's GeoJSON or ASAP's XML."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pcam_model.core.errors import SourceError, require_package
from pcam_model.core.log import log

MAX_BYTES = 256 * 2**20
GEOJSON_SUFFIXES, XML_SUFFIXES = (".geojson", ".json", ".geojson.gz"), (".xml",)
ASAP_AREAS = ("polygon", "rectangle", "spline")
MIN_POINTS = 3


class Annotation(NamedTuple):
    """An outline on a slide."""

    name: str
    """Of its class; empty without one."""
    polygon: Any
    """shapely's, valid, in pixels of level 0."""


def is_annotation_file(path: Path) -> bool:
    """Whether a file's name is that of outlines, rather than of a picture."""
    return path.name.lower().endswith((*GEOJSON_SUFFIXES, *XML_SUFFIXES))


def read_annotations(path: Path) -> list[Annotation]:
    """The polygons of a GeoJSON of QuPath or an XML of ASAP, mended where they cross themselves.

    Points and lines are left out.

    Raises:
        SourceError: it is neither of them, or larger than 256 MB.
    """
    kind, read = ("ASAP XML", _asap_shapes) if path.name.lower().endswith(XML_SUFFIXES) else ("GeoJSON", _json_shapes)
    with require_package(f"reading {kind}", extra="slides"):
        import shapely
    try:
        named = list(read(path))
    except SourceError:
        raise
    except (Exception, RecursionError) as error:  # shapely and the parsers raise nearly anything on what is none
        raise SourceError(f"{path}: it is no {kind} ({type(error).__name__}: {error}); export it again") from error
    crossed = sum(not geometry.is_valid for _, geometry in named)
    if crossed:
        log.warning("%s: %d outlines cross themselves and were mended", path, crossed)
    valid = ((name, shape if shape.is_valid else shapely.make_valid(shape)) for name, shape in named)
    return [
        Annotation(name, part)
        for name, shape in valid
        for part in shapely.get_parts(shapely.get_parts(shape)).tolist()
        if part.geom_type == "Polygon" and part.area > 0
    ]


def _json_shapes(path: Path) -> Iterator[tuple[str, Any]]:
    """Class and geometry of each object of a FeatureCollection, a list of features, a feature or a geometry."""
    from shapely.geometry import shape as parse_geometry

    for feature in _features(json.loads(_read_bounded(path))):
        geometry = feature["geometry"] if feature["type"] == "Feature" else feature
        yield _class_name(feature), parse_geometry(geometry)


def _features(content: Any) -> list[Any]:
    if isinstance(content, list):
        return [feature for item in content for feature in _features(item)]
    return _features(content["features"]) if content["type"] == "FeatureCollection" else [content]


def _class_name(feature: Any) -> str:
    classification = (feature.get("properties") or {}).get("classification") or {}
    return str(classification.get("name") or ": ".join(classification.get("names", ())))


def _asap_shapes(path: Path) -> Iterator[tuple[str, Any]]:
    """Group and geometry of each annotation of an ASAP XML that has an area."""
    from shapely import Polygon

    with require_package("reading ASAP XML", extra="slides"):
        from defusedxml import ElementTree
    root = ElementTree.fromstring(_read_bounded(path))
    if root.tag != "ASAP_Annotations":
        raise ValueError(f"its root is {root.tag}, expected ASAP_Annotations")
    pointless = 0
    for annotation in root.iter("Annotation"):
        if annotation.get("Type", "").lower() in ASAP_AREAS:
            coordinates = sorted(annotation.iter("Coordinate"), key=lambda each: float(each.get("Order", 0)))
            points = [(float(each.attrib["X"]), float(each.attrib["Y"])) for each in coordinates]
            if len(points) >= MIN_POINTS:
                yield annotation.get("PartOfGroup", ""), Polygon(points)
            pointless += len(points) < MIN_POINTS
    if pointless:
        log.warning("%s: %d outlines of fewer than %d points were left out", path, pointless, MIN_POINTS)


def _read_bounded(path: Path) -> bytes:
    """The content of a file, unpacked where its name ends in .gz. Raises SourceError where it is too large."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content: bytes = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise SourceError(f"{path}: it is larger than {MAX_BYTES // 2**20} MB; export fewer objects")
    return content
