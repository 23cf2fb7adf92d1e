"""Probabilities of a slide's patches: threads read regions ahead, patches are cut from memory in whole batches."""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.concurrency import ordered_prefetch
from pcam_model.data.image import PATCH_SIZE
from pcam_model.inference.predictor import Predictor
from pcam_model.slides.reader import Pixels
from pcam_model.slides.region_reader import ScaledReader
from pcam_model.slides.tiling import Block, Indices

MAX_THREADS = 4


class PatchPredictions(NamedTuple):
    """Predictions of N patches of a slide."""

    rows: Indices
    """(N,): row in the tiling."""
    columns: Indices
    """(N,)."""
    probabilities: NDArray[np.float32]
    """(N,): calibrated, that the centre 32x32 holds tumour."""


class PatchBatch(NamedTuple):
    """Patches of a slide."""

    rows: Indices
    columns: Indices
    pixels: Pixels
    """(N, 96, 96, 3), uint8."""


def predict_patches(
    predictor: Predictor, scaled: ScaledReader, parts: Iterable[Block], batch_size: int = 0
) -> Iterator[PatchPredictions]:
    """Predictions of all patches of the blocks, in their order; memory does not grow with their number.

    Args:
        predictor: the model.
        scaled: reads the slide at the model's scale.
        parts: the blocks.
        batch_size: patches at a time; 0: the backend's own.

    Raises:
        SourceError: the slide is damaged.
    """
    size = batch_size or predictor.backend.batch_size
    threads = min(MAX_THREADS, os.cpu_count() or 1)

    def read(block: Block) -> tuple[Block, Pixels]:
        return block, scaled.read(block.region)

    for batch in cut_batches(ordered_prefetch(read, parts, threads, threads + 1), size):
        predictions = predictor.predictions(predictor.logits(batch.pixels, size))
        yield PatchPredictions(batch.rows, batch.columns, predictions.probabilities.astype(np.float32))


def cut_batches(regions: Iterable[tuple[Block, Pixels]], size: int) -> Iterator[PatchBatch]:
    """Patches in batches of `size`, which may span blocks; the last one may be smaller."""
    buffer = _Buffer(size)
    for block, pixels in regions:
        for number, (y, x) in enumerate(block.offsets.tolist()):
            buffer.add(
                int(block.rows[number]), int(block.columns[number]), pixels[y : y + PATCH_SIZE, x : x + PATCH_SIZE]
            )
            if buffer.count == size:
                yield buffer.take()
    if buffer.count:
        yield buffer.take()


class _Buffer:
    """Collects the patches of one batch."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self._cells = np.empty((size, 2), np.int64)
        self._pixels = np.empty((size, PATCH_SIZE, PATCH_SIZE, 3), np.uint8)

    def add(self, row: int, column: int, patch: Pixels) -> None:
        self._cells[self.count] = row, column
        self._pixels[self.count] = patch
        self.count += 1

    def take(self) -> PatchBatch:
        """The patches so far; the pixels are valid until the next `add`."""
        cells, pixels = self._cells[: self.count].copy(), self._pixels[: self.count]
        self.count = 0
        return PatchBatch(cells[:, 0], cells[:, 1], pixels)
