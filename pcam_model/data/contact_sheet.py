"""A sheet of random patches of each class, as a picture."""

import io

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pcam_model.data.image import SIZE

ROWS, COLUMNS = 4, 8
UNLABELLED = -1
NAMES = {0: "No tumour in the centre", 1: "Tumour in the centre", UNLABELLED: "Not labelled"}
CENTRE = 32
# In pixels of the picture, in which a patch has its own size.
GAP, MARGIN, TITLE, DPI = 8, 28, 44, 100
WIDTH = COLUMNS * (SIZE + GAP) - GAP + 2 * MARGIN
INK, QUIET = "#222222", "#777777"

Picture = NDArray[np.uint8]


def draw_sheet(patches: Picture, labels: "pd.Series[int]", seed: int) -> bytes:
    """A PNG with up to 32 random patches of each class of (N, 96, 96, 3), the centre that decides the label framed."""
    groups = {label: np.flatnonzero((labels == label).fillna(False)) for label in (0, 1)}
    groups[UNLABELLED] = np.flatnonzero(labels.isna())
    shown = {label: rows for label, rows in groups.items() if len(rows)}
    blocks = {}
    for place, (label, rows) in enumerate(shown.items()):
        chosen = np.sort(np.random.default_rng([seed, place]).permutation(rows)[: ROWS * COLUMNS])
        blocks[label] = montage(patches[chosen] if label == UNLABELLED else framed(patches[chosen]))
    height = sum(TITLE + len(block) for block in blocks.values()) + MARGIN
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)
    top = height
    for label, block in blocks.items():
        top -= TITLE
        count = f"{min(len(shown[label]), ROWS * COLUMNS)} of {len(shown[label]):,}"
        for place, side, text, colour in ((MARGIN, "left", NAMES[label], INK), (WIDTH - MARGIN, "right", count, QUIET)):
            figure.text(place / WIDTH, (top + 11) / height, text, ha=side, fontsize=11, color=colour)
        top -= len(block)
        figure.figimage(block, MARGIN, top)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    return picture.getvalue()


def framed(patches: Picture) -> Picture:
    """The patches with a thin frame around the centre, light and dark, so that it shows on any tissue."""
    shown = patches.copy()
    for beyond, shade in ((2, 0), (1, 255)):
        low, high = (SIZE - CENTRE) // 2 - beyond, (SIZE + CENTRE) // 2 + beyond
        for line in (low, high - 1):
            shown[:, line, low:high] = shown[:, low:high, line] = shade
    return shown


def montage(patches: Picture) -> Picture:
    """(n, 96, 96, 3) -> one white sheet (height, width, 3) of 8 patches a row, with gaps between them."""
    rows, step = -(-len(patches) // COLUMNS), SIZE + GAP
    sheet = np.full((rows * step - GAP, COLUMNS * step - GAP, 3), 255, np.uint8)
    for place, patch in enumerate(patches):
        y, x = step * (place // COLUMNS), step * (place % COLUMNS)
        sheet[y : y + SIZE, x : x + SIZE] = patch
    return sheet
