"""Predictions of many images, streamed: decoded by threads ahead of the network."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.concurrency import ordered_prefetch
from pcam_model.core.predictions_csv import Counts, Rows, tables
from pcam_model.data.image import SIZE, PatchError
from pcam_model.data.image_inputs import Images
from pcam_model.data.names import NamedImage
from pcam_model.inference.predictor import Predictor

Tell = Callable[[int, int], None]


class DecodedBatch(NamedTuple):
    """Some images: who they are, their pixels (B, 96, 96, 3), and who could not be read, with the reason."""

    named: list[NamedImage]
    pixels: NDArray[np.uint8]
    bad: list[tuple[NamedImage, str]]


def predict_to_csv(out: Path, predictor: Predictor, images: Images, batch: int = 0, tell: Tell | None = None) -> Counts:
    """Write a row an image to the CSV `out`, and beside it what could not be read; see `tables` for what it raises.

    Memory does not grow with the number of images.
    """
    with tables(out) as made:
        for some in predict_rows(predictor, images, range(len(images)), batch, tell):
            made.add(some)
    return made.counts


def predict_rows(
    predictor: Predictor, images: Images, chosen: Sequence[int], batch: int = 0, tell: Tell | None = None
) -> Iterator[Rows]:
    """Predictions of the chosen images, in their order, `batch` at a time."""
    done, size = 0, batch or predictor.runtime.batch
    parts = (chosen[start : start + size] for start in range(0, len(chosen), size))
    for decoded in ordered_prefetch(partial(_decode, images), parts, threads=min(4, os.cpu_count() or 1), most=6):
        said = predictor.of_logits(predictor.logits(decoded.pixels, size))
        chances = zip(decoded.named, said.probabilities.tolist(), said.labels.tolist(), strict=True)
        yield Rows(
            rows=tuple((name, chance, label, file) for (name, file), chance, label in chances),
            unreadable=tuple((name, reason, file) for (name, file), reason in decoded.bad),
        )
        done += len(decoded.named) + len(decoded.bad)
        if tell:
            tell(done, len(chosen))


def _decode(images: Images, rows: Sequence[int]) -> DecodedBatch:
    pixels = np.empty((len(rows), SIZE, SIZE, 3), np.uint8)
    named: list[NamedImage] = []
    bad: list[tuple[NamedImage, str]] = []
    for row in rows:
        try:
            pixels[len(named)] = images.patch(row)
            named.append(images.named(row))
        except PatchError as error:
            bad.append((images.named(row), str(error)))
    return DecodedBatch(named, pixels[: len(named)], bad)
