"""Annotated slides as the source of a run: their identity, and their patches."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import ConfigError
from pcam_model.core.files import sha256
from pcam_model.core.optional_cache import call_with_cache
from pcam_model.core.pixel_size import MAX_MISMATCH, PCAM_MPP, relative_difference
from pcam_model.data.source import Archive, SourceConfig
from pcam_model.inference.predictor import Predictor, load
from pcam_model.registry.manifest import json_bytes, sha256_hex
from pcam_model.registry.resolve import find_model
from pcam_model.slides.annotated_slides import AnnotatedSlide, find_annotated
from pcam_model.slides.listing import slide_fingerprint
from pcam_model.slides.patch_selection import Cells
from pcam_model.slides.prediction import PreparedSlide
from pcam_model.slides.slide_patches import SlidePatches, read_cell

VERSION = 1
"""Of how patches are chosen and cut."""
KEYS = {
    "mpp", "slide_mpp", "tumour_classes", "normal_classes", "ignored_classes", "unannotated_slides",
    "unannotated_tissue", "max_per_slide",
}  # fmt: skip
BATCH = 256


def slides_archive(config: SourceConfig, seed: int, store: str) -> Archive:
    """The slides of a source, with a digest of all that decides which patches they give.

    Args:
        config: the source.
        seed: of what is drawn.
        store: the address of the store in which the model for hard negatives is looked up.

    Raises:
        ConfigError: a key is missing, or the model for hard negatives is of another scale.
        SourceError: slides or annotations are missing.
        ModelError: there is no such model.
    """
    slides, model = find_annotated(config), ""
    content = {
        "version": VERSION,
        "seed": seed,
        "keys": config.model_dump(mode="json", include=KEYS),
        "slides": [_identity(slide) for slide in slides],
    }
    if config.hard_negatives:
        model = str(call_with_cache(lambda cache: find_model(config.hard_negatives, store, cache)))
        content["hard_negatives"] = _require_scale(load(model), config).model.weights_sha256
    path = Path(config.path).expanduser().resolve()
    return Archive(
        path=str(path),
        sha256=sha256_hex(json_bytes(content)),
        source=f"{path.name} ({len(slides):,} slides)",
        hard_negatives=model,
    )


def open_slide_patches(archive: Archive, config: SourceConfig, seed: int) -> SlidePatches:
    """The patches of annotated slides.

    Raises:
        SourceError: a slide or its annotations cannot be read.
    """
    predictor = load(archive.hard_negatives, backend="auto", tta=False) if archive.hard_negatives else None
    return SlidePatches(find_annotated(config), config, seed, CellPredictor(predictor) if predictor else None)


class CellPredictor:
    """Probabilities of cells of a slide by a model."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def __call__(self, slide: PreparedSlide, cells: Cells) -> NDArray[np.float64]:
        """The probabilities (N,) of cells (N, 2) of an open slide."""
        batches = [cells[start : start + BATCH].tolist() for start in range(0, len(cells), BATCH)]
        probabilities = [
            self._predictor(
                np.stack([read_cell(slide.reader, slide.scale, slide.tiling, *cell) for cell in batch])
            ).probabilities
            for batch in batches
        ]
        return np.concatenate([*probabilities, np.empty(0)])


def _identity(slide: AnnotatedSlide) -> list[str]:
    """Name, fingerprint of the slide, and digest of its annotations."""
    annotations = sha256(slide.annotations) if slide.annotations else ""
    return [slide.file.name, slide_fingerprint(Path(slide.file.path)), annotations]


def _require_scale(predictor: Predictor, config: SourceConfig) -> Predictor:
    """The predictor. Raises ConfigError where it was trained at another scale than the patches are cut at."""
    mpp = config.mpp or PCAM_MPP
    if relative_difference(predictor.model.mpp, mpp) > MAX_MISMATCH:
        raise ConfigError(
            f"source.hard_negatives is a model of {predictor.model.mpp:g} microns per pixel, and the patches are cut "
            f"at {mpp:g} (source.mpp); choose a model of the same scale"
        )
    return predictor
