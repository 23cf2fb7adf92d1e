"""Drift of new images from what a published model was evaluated on."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import SourceError
from pcam_model.data.image import Patch, PatchError
from pcam_model.data.image_inputs import Images
from pcam_model.evaluation.drift import MIN_PATCHES, DriftResult, compare_with_reference
from pcam_model.evaluation.drift_reference import draw_rows, drift_sample, read_reference
from pcam_model.inference.backends import TorchBackend

SAMPLE_SIZE = 1000
"""Images that are compared at most."""
READING_THREADS = 4


def measure_drift(
    folder: Path, images: Images, slides: Mapping[str, str] | None = None, sample_size: int = SAMPLE_SIZE
) -> DriftResult:
    """Compare images with the reference of the model in a folder; torch computes the features.

    Args:
        folder: as `registry.resolve.find_model` gives it.
        images: `sample_size` of them are drawn, always the same; those that cannot be read are left out.
        slides: the slide of each id, where slides are known.
        sample_size: images that are compared at most.

    Raises:
        ModelError: the model is damaged, or was published without a reference.
        SourceError: too few images can be read, or the slide of one is not known.
    """
    reference = read_reference(folder)
    ids, patches = _read_sample(images, sample_size)
    if len(patches) < MIN_PATCHES:
        raise SourceError(
            f"{len(patches)} of {len(images):,} images can be read, expected at least {MIN_PATCHES}: fewer do not tell "
            "whether they drifted"
        )
    backend = TorchBackend(folder)
    new = drift_sample(
        backend.network, patches, backend.model.image_size, backend.model.scaling, _slides_of(ids, slides or {})
    )
    return compare_with_reference(reference, new)


def _read_sample(images: Images, limit: int) -> tuple[list[str], NDArray[np.uint8]]:
    """Ids and patches (N, 96, 96, 3) of a sample of the images that can be read."""
    rows = draw_rows(len(images), limit, seed=0).tolist()
    with ThreadPoolExecutor(READING_THREADS) as pool:
        patches = list(pool.map(lambda row: _read(images, row), rows))
    readable = [(row, patch) for row, patch in zip(rows, patches, strict=True) if patch is not None]
    ids = [images.name(row).id for row, _ in readable]
    return ids, np.stack([patch for _, patch in readable]) if readable else np.empty((0, 96, 96, 3), np.uint8)


def _read(images: Images, row: int) -> Patch | None:
    try:
        return images.patch(row)
    except PatchError:
        return None


def _slides_of(ids: Sequence[str], slides: Mapping[str, str]) -> tuple[str, ...]:
    """The slide of each id; empty where no slides are known."""
    if not slides:
        return ()
    missing = [each for each in ids if each not in slides]
    if missing:
        raise SourceError(
            f"{len(missing):,} of {len(ids):,} images are not in the map of slides (first: {missing[0]}); complete it, "
            "or leave it out"
        )
    return tuple(slides[each] for each in ids)
