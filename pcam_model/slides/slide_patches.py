"""The patches of annotated slides as a source: chosen by their annotations, cut from the slides when they are read."""

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pcam_model.core.errors import SourceError
from pcam_model.core.log import log
from pcam_model.core.pixel_size import PCAM_MPP
from pcam_model.data.image import CENTRE_SIZE, PATCH_SIZE, Patch, PatchError
from pcam_model.data.patch_source import PatchSource
from pcam_model.data.source import SourceConfig
from pcam_model.slides.annotated_slides import AnnotatedSlide
from pcam_model.slides.geometry import Point, Region, Size
from pcam_model.slides.listing import SlideFile
from pcam_model.slides.open_slide import open_slide
from pcam_model.slides.patch_selection import Candidates, Predict, balanced, cell_centre, find_candidates
from pcam_model.slides.prediction import prepare_slide
from pcam_model.slides.reader import SlideReader
from pcam_model.slides.records import SlideOptions
from pcam_model.slides.region_reader import ScaledReader
from pcam_model.slides.scale import SlideScale
from pcam_model.slides.tiling import Tiling
from pcam_model.slides.tumour_regions import AnnotationClasses, PolygonRegions, read_regions


class CutSlide(NamedTuple):
    """A slide, and the grid that its patches are cut on."""

    file: SlideFile
    scale: SlideScale
    tiling: Tiling


class _Cell(NamedTuple):
    """A patch."""

    slide: CutSlide
    row: int
    column: int


class SlidePatches(PatchSource):
    """A `PatchSource` of annotated slides; each patch is named by its slide and its centre in pixels of level 0."""

    def __init__(
        self, slides: Sequence[AnnotatedSlide], config: SourceConfig, seed: int, predict: Predict | None = None
    ) -> None:
        """Choose the patches of all slides.

        Args:
            slides: with their annotations.
            config: the source.
            seed: of what is drawn.
            predict: a model that mines hard negatives.

        Raises:
            SourceError: a slide or its annotations cannot be read.
        """
        self._readers = _ThreadReaders()
        cut, candidates = _choose_all(slides, config, seed, predict)
        self._cells: list[_Cell] = []
        labels: list[int] = []
        for slide, chosen in zip(cut, balanced(candidates), strict=True):
            labelled = [
                (*cell, label) for label, cells in enumerate((chosen.normal, chosen.tumour)) for cell in cells.tolist()
            ]
            self._cells += [_Cell(slide, row, column) for row, column, _ in sorted(labelled)]
            labels += [label for *_, label in sorted(labelled)]
        names = [cell.slide.file.name for cell in self._cells]
        centres = [cell_centre(cell.slide.tiling, cell.row, cell.column) for cell in self._cells]
        self.table = pd.DataFrame({
            "id": [f"{name}-{x}-{y}" for name, (x, y) in zip(names, centres, strict=True)],
            "label": pd.array(labels, dtype="Int8"),
            "slide": names,
            "origin": "train",
        })  # fmt: skip
        log.info("Slides: %s patches of %s slides, %s of them with tumour", f"{len(labels):,}", f"{len(cut):,}",
                 f"{sum(labels):,}")  # fmt: skip

    def patch(self, row: int) -> Patch:
        """The patch in this row: uint8 (96, 96, 3). Raises PatchError. Thread-safe."""
        cell = self._cells[row]
        try:
            return read_cell(self._readers.open(cell.slide.file), *cell.slide[1:], cell.row, cell.column)
        except SourceError as error:
            raise PatchError(str(error)) from error

    def close(self) -> None:
        """Close the slides."""
        self._readers.close()


def read_cell(reader: SlideReader, scale: SlideScale, tiling: Tiling, row: int, column: int) -> Patch:
    """The pixels of a patch of an open slide: uint8 (96, 96, 3)."""
    origin = Point(column * tiling.stride, row * tiling.stride, scale.grid)
    return ScaledReader(reader, scale.level, scale.grid).read(Region(origin, Size(PATCH_SIZE, PATCH_SIZE, scale.grid)))


def _choose_all(
    slides: Sequence[AnnotatedSlide], config: SourceConfig, seed: int, predict: Predict | None
) -> tuple[list[CutSlide], list[Candidates]]:
    """Each slide and its candidates; the slides are closed again."""
    options = SlideOptions(stride=CENTRE_SIZE, mpp=config.slide_mpp)
    classes = AnnotationClasses(config.tumour_classes, config.normal_classes, config.ignored_classes)
    cut: list[CutSlide] = []
    candidates: list[Candidates] = []
    for number, (file, annotations) in enumerate(slides, 1):
        with closing(open_slide(Path(file.path))) as reader:
            slide = prepare_slide(file, reader, options, config.mpp or PCAM_MPP, "source.slide_mpp")
            size = reader.levels[0].size
            regions = read_regions(annotations, size, classes) if annotations else PolygonRegions([])
            found = find_candidates(slide, regions, config, seed, predict)
        candidates.append(found)
        cut.append(CutSlide(file, slide.scale, slide.tiling))
        log.info("Slide %s (%d of %d): up to %s patches with tumour and %s without", file.name, number, len(slides),
                 f"{len(found.tumour):,}", f"{len(found.normal):,}")  # fmt: skip
    return cut, candidates


class _ThreadReaders:
    """The slide that each thread reads; a thread that moves on to another closes the one before."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._open: dict[int, SlideReader] = {}
        self._lock = threading.Lock()

    def open(self, file: SlideFile) -> SlideReader:
        """This thread's reader of a slide."""
        if getattr(self._own, "path", "") != file.path:
            reader = open_slide(Path(file.path))
            with self._lock:
                before = self._open.pop(threading.get_ident(), None)
                self._open[threading.get_ident()] = reader
            if before:
                before.close()
            self._own.path, self._own.reader = file.path, reader
        own: SlideReader = self._own.reader
        return own

    def close(self) -> None:
        """Close the readers of all threads."""
        with self._lock:
            for reader in self._open.values():
                reader.close()
            self._open.clear()
        self._own = threading.local()
