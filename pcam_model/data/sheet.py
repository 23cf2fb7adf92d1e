"""A sheet of random patches of each class, as a picture."""

import io

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from pcam_model.data.image import SIZE

ROWS, COLUMNS = 4, 8
UNLABELLED = -1
NAMES = {0: "no tumour in the centre", 1: "tumour in the centre", UNLABELLED: "not labelled"}
CENTRE = 32


def draw_sheet(patches: NDArray[np.uint8], labels: "pd.Series[int]", seed: int) -> bytes:
    """A PNG with up to 32 random patches of each class of (N, 96, 96, 3), the centre that decides the label framed."""
    groups = {label: np.flatnonzero((labels == label).fillna(False)) for label in (0, 1)}
    groups[UNLABELLED] = np.flatnonzero(labels.isna())
    shown = {label: rows for label, rows in groups.items() if len(rows)}
    figure = Figure(figsize=(8, 4.4 * len(shown)), layout="constrained")
    for place, (label, rows) in enumerate(shown.items()):
        axes = figure.add_subplot(len(shown), 1, place + 1)
        chosen = np.random.default_rng([seed, place]).permutation(rows)[: ROWS * COLUMNS]
        axes.imshow(montage(patches[np.sort(chosen)]))
        axes.set_title(f"{NAMES[label]}: {len(chosen)} of {len(rows):,}", fontsize=10)
        axes.set_axis_off()
        for spot in range(len(chosen) if label != UNLABELLED else 0):
            corner = [SIZE * (spot % COLUMNS) + CENTRE, SIZE * (spot // COLUMNS) + CENTRE]
            axes.add_patch(Rectangle((corner[0], corner[1]), CENTRE, CENTRE, fill=False, color="white", linewidth=0.5))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def montage(patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 96, 96, 3) -> one white sheet of 8 patches a row."""
    rows = -(-len(patches) // COLUMNS)
    sheet = np.full((rows * COLUMNS, SIZE, SIZE, 3), 255, np.uint8)
    sheet[: len(patches)] = patches
    grid = sheet.reshape(rows, COLUMNS, SIZE, SIZE, 3).swapaxes(1, 2)
    whole: NDArray[np.uint8] = grid.reshape(rows * SIZE, COLUMNS * SIZE, 3)
    return whole
