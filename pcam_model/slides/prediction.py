"""The prediction of one slide."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pcam_model.core.errors import SourceError
from pcam_model.inference.predictor import Predictor
from pcam_model.registry.manifest import list_files
from pcam_model.slides.heatmap import write_picture, write_pyramid
from pcam_model.slides.listing import SlideFile
from pcam_model.slides.open_slide import open_slide
from pcam_model.slides.outlines import tile_features, tumour_features, write_features
from pcam_model.slides.overview import Overview, read_overview
from pcam_model.slides.patch_stream import predict_patches
from pcam_model.slides.probability_map import ProbabilityMap, TableWriter
from pcam_model.slides.reader import SlideReader
from pcam_model.slides.records import (
    PICTURE_FILE,
    PYRAMID_FILE,
    RECORD_FILE,
    TABLE_FILE,
    TISSUE_FILE,
    SlideOptions,
    SlideResult,
)
from pcam_model.slides.region_files import find_region_file, read_region_mask
from pcam_model.slides.region_reader import ScaledReader
from pcam_model.slides.scale import SlideScale, slide_scale
from pcam_model.slides.scores import slide_scores
from pcam_model.slides.tiling import (
    Mask,
    Selection,
    Tiling,
    block_side,
    blocks,
    count_patches,
    every_patch,
    make_tiling,
)
from pcam_model.slides.tissue import TissueCells, tissue_mask
from pcam_model.slides.view import write_view

OnProgress = Callable[[int, int], None]
"""Called with (patches done, patches in all)."""


class SlideModel(NamedTuple):
    """A model, and how slides are predicted with it."""

    predictor: Predictor
    options: SlideOptions
    batch_size: int = 0
    """Patches at a time; 0: the backend's own."""


@dataclass(frozen=True)
class PreparedSlide:
    """An open slide, and which of its patches are predicted."""

    file: SlideFile
    reader: SlideReader
    scale: SlideScale
    tiling: Tiling
    overview: Overview
    mask: Mask | None
    """On the overview's pixels; None: all patches are predicted."""

    @property
    def selection(self) -> Selection:
        """The patches whose centre is in the mask."""
        return every_patch if self.mask is None else TissueCells(self.mask, self.overview.grid)

    @property
    def mask_mm2(self) -> float | None:
        """The mask's area in mm²; None without one."""
        side_mm = self.overview.grid.downsample * self.scale.mpp / 1e3
        return None if self.mask is None else int(self.mask.sum()) * side_mm**2


def predict_slide(
    file: SlideFile, model: SlideModel, folder: Path, key: str, on_progress: OnProgress | None = None
) -> SlideResult:
    """Predict a slide into a folder; slide.json is written last.

    Args:
        file: the slide.
        model: the model, and how.
        folder: for the files.
        key: of the result; see `records.result_key`.
        on_progress: called after each batch.

    Raises:
        SourceError: the slide cannot be read, does not tell its pixel size, or shows no tissue; or the mask is bad.
    """
    start = time.monotonic()
    with closing(open_slide(Path(file.path))) as reader:
        slide = prepare_slide(file, reader, model.options, model.predictor.model.mpp)
        probabilities = _predict_map(slide, model, folder / TABLE_FILE, on_progress)
        _write_files(folder, slide, probabilities, model)
    result = _result(slide, probabilities, model, key, time.monotonic() - start, folder)
    (folder / RECORD_FILE).write_text(result.model_dump_json(indent=1), "utf-8")
    return result


def prepare_slide(
    file: SlideFile, reader: SlideReader, options: SlideOptions, model_mpp: float, setting: str = "--mpp"
) -> PreparedSlide:
    """Choose level and patches of an open slide for a model of `model_mpp`.

    Raises SourceError as `predict_slide`; `setting` is what gives the slides' pixel size.
    """
    scale = slide_scale(reader, file.name, model_mpp, options.mpp, setting)
    tiling = make_tiling(reader.levels[0].size, scale.grid, options.stride, file.name)
    overview = read_overview(reader, scale.mpp)
    return PreparedSlide(file, reader, scale, tiling, overview, _find_mask(file, options, overview, scale.mpp))


def _find_mask(file: SlideFile, options: SlideOptions, overview: Overview, mpp: float) -> Mask | None:
    if options.mask:
        path = find_region_file(Path(options.mask).expanduser(), file.name)
        return read_region_mask(path, overview.pixels.shape[:2], overview.grid)
    return tissue_mask(overview.pixels, overview.grid.downsample * mpp) if options.tissue_mask else None


def _predict_map(
    slide: PreparedSlide, model: SlideModel, table: Path, on_progress: OnProgress | None
) -> ProbabilityMap:
    """Predict all selected patches into the table, and into a map."""
    selection, total = slide.selection, count_patches(slide.tiling, slide.selection)
    if not total:
        what = "the mask holds no patch" if model.options.mask else "no tissue was found"
        raise SourceError(f"{slide.file.name}: {what}; --no-tissue-mask predicts all of the slide")
    scaled = ScaledReader(slide.reader, slide.scale.level, slide.scale.grid)
    parts = blocks(slide.tiling, block_side(scaled.ratio, slide.tiling.stride), selection)
    probabilities, done = ProbabilityMap.empty(slide.tiling), 0
    with TableWriter(table, slide.tiling, _table_metadata(slide, model)) as writer:
        for predictions in predict_patches(model.predictor, scaled, parts, model.batch_size):
            writer.add(predictions)
            probabilities.add(predictions)
            done += len(predictions.rows)
            if on_progress:
                on_progress(done, total)
    return probabilities


def _table_metadata(slide: PreparedSlide, model: SlideModel) -> dict[str, str]:
    return {
        "slide": slide.file.name,
        "model": model.predictor.model.run,
        "mpp": f"{slide.scale.mpp:.9g}",
        "patch_mpp": f"{slide.scale.patch_mpp:.9g}",
        "stride": str(slide.tiling.stride),
    }


def _write_files(folder: Path, slide: PreparedSlide, probabilities: ProbabilityMap, model: SlideModel) -> None:
    mpp, options = slide.scale.mpp, model.options
    write_picture(folder / PICTURE_FILE, slide.overview, probabilities)
    write_pyramid(folder / PYRAMID_FILE, probabilities, mpp)
    features = tumour_features(probabilities, model.predictor.model.threshold, mpp)
    if options.view_mpp:
        write_view(folder, slide.file.name, slide.reader, mpp, options.view_mpp, probabilities, features)
    write_features(folder, [*features, *(tile_features(probabilities) if options.tiles else ())])
    if slide.mask is not None:
        Image.fromarray(slide.mask).save(folder / TISSUE_FILE)


def _result(
    slide: PreparedSlide, probabilities: ProbabilityMap, model: SlideModel, key: str, seconds: float, folder: Path
) -> SlideResult:
    size, scale, predictor = slide.reader.levels[0].size, slide.scale, model.predictor
    return SlideResult(
        name=slide.file.name,
        path=slide.file.path,
        key=key,
        vendor=slide.reader.vendor,
        width=int(size.width),
        height=int(size.height),
        mpp=scale.mpp,
        mpp_source=scale.mpp_source,
        level=scale.level.index,
        patch_mpp=scale.patch_mpp,
        stride=slide.tiling.stride,
        model=predictor.model.run,
        model_mpp=predictor.model.mpp,
        threshold=predictor.model.threshold,
        tta=predictor.tta,
        backend=predictor.backend_choice.name,
        precision=predictor.precision,
        patches=len(probabilities.predicted),
        tissue_mm2=slide.mask_mm2,
        scores=slide_scores(probabilities, predictor.model.threshold, scale.mpp),
        seconds=seconds,
        files={name: path.stat().st_size for name, path in list_files(folder).items()},
    )
