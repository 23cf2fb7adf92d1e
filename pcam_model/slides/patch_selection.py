"""Which patches of annotated slides are taken: labelled by their centre, balanced, and capped per slide."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.rng import derived_seed
from pcam_model.data.source import SourceConfig
from pcam_model.slides.geometry import LEVEL_0
from pcam_model.slides.prediction import PreparedSlide
from pcam_model.slides.tiling import MAX_BLOCK_SIDE, Indices, Mask, Tiling
from pcam_model.slides.tumour_regions import TumourRegions

SELECTION_KEY = 60  # the first number of an RNG key: what the random numbers are for
HARD_POOL = 8
"""Normal patches that are predicted for each one that is taken, where hard negatives are mined."""

Cells = NDArray[np.int64]
"""(N, 2): row and column of each patch in the tiling."""
Predict = Callable[[PreparedSlide, Cells], NDArray[np.float64]]
"""The probabilities (N,) of cells of a slide."""


class Candidates(NamedTuple):
    """Patches of a slide, in the order in which they are taken."""

    tumour: Cells
    normal: Cells


def find_candidates(
    slide: PreparedSlide, regions: TumourRegions, config: SourceConfig, seed: int, predict: Predict | None = None
) -> Candidates:
    """At most half of `max_per_slide` patches of each class, drawn from those whose centre holds tissue.

    Args:
        slide: prepared at stride 32, so that the centres of no two patches overlap.
        regions: its annotations.
        config: the source.
        seed: of the drawing, which depends on the slide's name besides.
        predict: a model; half of the normal patches are then those that it takes most for tumour among many.
    """
    limit = max(config.max_per_slide // 2, 1)
    name_key = int.from_bytes(hashlib.sha256(slide.file.name.encode()).digest()[:7])
    random = np.random.default_rng(derived_seed(seed, SELECTION_KEY, name_key))
    tumour, normal = (random.permutation(cells) for cells in _labelled_cells(slide, regions, config))
    if predict:
        normal = _hardest_first(normal[: HARD_POOL * limit], limit, lambda cells: predict(slide, cells))
    return Candidates(tumour[:limit], normal[:limit])


def _labelled_cells(slide: PreparedSlide, regions: TumourRegions, config: SourceConfig) -> tuple[Cells, Cells]:
    """All cells of tissue with tumour in their centre, and all without."""
    tiling, columns = slide.tiling, np.arange(slide.tiling.columns)
    tumour: list[Cells] = [np.empty((0, 2), np.int64)]
    normal: list[Cells] = [np.empty((0, 2), np.int64)]
    for start in range(0, tiling.rows, MAX_BLOCK_SIDE):
        rows = np.arange(start, min(start + MAX_BLOCK_SIDE, tiling.rows))
        wanted = slide.selection(tiling, rows, columns) & ~regions.ignored_cells(tiling, rows, columns)
        is_tumour = regions.tumour_cells(tiling, rows, columns)
        is_normal = ~is_tumour
        if config.unannotated_tissue == "ignore":
            is_normal &= regions.normal_cells(tiling, rows, columns)
        tumour.append(_cells(wanted & is_tumour, rows))
        normal.append(_cells(wanted & is_normal, rows))
    return np.concatenate(tumour), np.concatenate(normal)


def _cells(mask: Mask, rows: Indices) -> Cells:
    found = np.argwhere(mask)
    return np.column_stack([rows[found[:, 0]], found[:, 1]])


def _hardest_first(pool: Cells, limit: int, predict: Callable[[Cells], NDArray[np.float64]]) -> Cells:
    """The cells of highest probability in turn with cells at random, `limit` in all or fewer; no cell is repeated."""
    if len(pool) <= limit:
        return pool
    hard = np.argsort(-predict(pool), kind="stable")[: limit // 2]
    others = np.setdiff1d(np.arange(len(pool)), hard)[: limit - len(hard)]
    order = np.argsort(np.concatenate([np.arange(len(others)), np.arange(len(hard)) + 0.5]), kind="stable")
    chosen: Cells = pool[np.concatenate([others, hard])[order]]
    return chosen


def balanced(candidates: Sequence[Candidates]) -> list[Candidates]:
    """As many patches of both classes over all slides, by one quota per slide for the class that has more."""
    counts = np.array([[len(cells) for cells in each] for each in candidates]).reshape(-1, 2)
    quotas = [common_quota(counts[:, label], int(counts[:, 1 - label].sum())) for label in (0, 1)]
    return [Candidates(each.tumour[: quotas[0]], each.normal[: quotas[1]]) for each in candidates]


def common_quota(counts: NDArray[np.int64], total: int) -> int:
    """The quota per slide that makes `total` patches of `counts` (S,) available ones, at least 1 and never fewer.

    The last slides to reach it may make a few more than `total`.
    """
    quota = int(counts.max(initial=0))
    low, high = 1, max(quota, 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if np.minimum(counts, middle).sum() >= total else (middle + 1, high)
    return low


def cell_centre(tiling: Tiling, row: int, column: int) -> tuple[int, int]:
    """The x and y of a patch's centre, in whole pixels of level 0."""
    centre = tiling.centre(row, column).on(LEVEL_0)
    return round(centre.x), round(centre.y)
