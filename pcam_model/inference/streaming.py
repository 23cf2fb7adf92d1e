"""Prediction of many images in constant memory: threads decode images ahead of the network."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.concurrency import ordered_prefetch
from pcam_model.core.predictions_csv import PredictionCounts, PredictionRows, write_predictions
from pcam_model.data.image import PATCH_SIZE, ImageName, PatchError
from pcam_model.data.image_inputs import Images
from pcam_model.inference.predictor import Predictor

OnProgress = Callable[[int, int], None]
MAX_DECODING_THREADS, MAX_PENDING_BATCHES = 4, 6


class DecodedBatch(NamedTuple):
    """A batch of decoded images."""

    names: list[ImageName]
    """The images that could be read."""
    pixels: NDArray[np.uint8]
    """Their pixels, (B, 96, 96, 3)."""
    unreadable: list[tuple[ImageName, str]]
    """The images that could not be read, with the reason."""


def predict_to_csv(
    out: Path, predictor: Predictor, images: Images, batch_size: int = 0, on_progress: OnProgress | None = None
) -> PredictionCounts:
    """Predict all images into the CSV `out`, and list those that could not be read in `errors_path(out)`.

    Raises:
        ConfigError: `out` is a folder or a device.
        UnwritableError: `out` cannot be written to.
        DiskFullError: the disk is full.
    """
    with write_predictions(out, setting="--out", conformal=predictor.model.conformal) as writer:
        for rows in predict_rows(predictor, images, range(len(images)), batch_size, on_progress):
            writer.add(rows)
    return writer.counts


def predict_rows(
    predictor: Predictor,
    images: Images,
    indices: Sequence[int],
    batch_size: int = 0,
    on_progress: OnProgress | None = None,
) -> Iterator[PredictionRows]:
    """Predictions of the images at `indices`, in their order, batch by batch."""
    done, size = 0, batch_size or predictor.backend.batch_size
    batches = (indices[start : start + size] for start in range(0, len(indices), size))
    threads = min(MAX_DECODING_THREADS, os.cpu_count() or 1)
    for batch in ordered_prefetch(partial(_decode, images), batches, threads, MAX_PENDING_BATCHES):
        yield _predict(predictor, batch, size)
        done += len(batch.names) + len(batch.unreadable)
        if on_progress:
            on_progress(done, len(indices))


def _predict(predictor: Predictor, batch: DecodedBatch, batch_size: int) -> PredictionRows:
    predictions = predictor.predictions(predictor.logits(batch.pixels, batch_size))
    rows = zip(batch.names, predictions.probabilities.tolist(), predictions.labels.tolist(), strict=True)
    return PredictionRows(
        rows=tuple((name, probability, label, file) for (name, file), probability, label in rows),
        unreadable=tuple((name, reason, file) for (name, file), reason in batch.unreadable),
    )


def _decode(images: Images, indices: Sequence[int]) -> DecodedBatch:
    pixels = np.empty((len(indices), PATCH_SIZE, PATCH_SIZE, 3), np.uint8)
    names: list[ImageName] = []
    unreadable: list[tuple[ImageName, str]] = []
    for index in indices:
        try:
            pixels[len(names)] = images.patch(index)
            names.append(images.name(index))
        except PatchError as error:
            unreadable.append((images.name(index), str(error)))
    return DecodedBatch(names, pixels[: len(names)], unreadable)
