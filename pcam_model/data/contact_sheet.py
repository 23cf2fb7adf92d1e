"""A contact sheet of random patches of each class, as a PNG."""

import io

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pcam_model.data.image import CENTRE_SIZE, PATCH_SIZE

ROWS, COLUMNS = 4, 8
UNLABELLED = -1
TITLES = {0: "No tumour in the centre", 1: "Tumour in the centre", UNLABELLED: "Not labelled"}
# In pixels of the sheet, in which a patch has its own size.
GAP, MARGIN, TITLE, DPI = 8, 28, 44, 100
WIDTH = COLUMNS * (PATCH_SIZE + GAP) - GAP + 2 * MARGIN
INK, GREY = "#222222", "#777777"

Pixels = NDArray[np.uint8]


def draw_contact_sheet(patches: Pixels, labels: "pd.Series[int]", seed: int) -> bytes:
    """A PNG of up to 32 random patches (N, 96, 96, 3) of each class, with a frame around the labelled centre."""
    groups = {label: np.flatnonzero((labels == label).fillna(False)) for label in (0, 1)}
    groups[UNLABELLED] = np.flatnonzero(labels.isna())
    groups = {label: rows for label, rows in groups.items() if len(rows)}
    blocks = {}
    for index, (label, rows) in enumerate(groups.items()):
        chosen = np.sort(np.random.default_rng([seed, index]).permutation(rows)[: ROWS * COLUMNS])
        blocks[label] = montage(patches[chosen] if label == UNLABELLED else add_frames(patches[chosen]))
    height = sum(TITLE + len(block) for block in blocks.values()) + MARGIN
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)
    top = height
    for label, block in blocks.items():
        top -= TITLE
        count = f"{min(len(groups[label]), ROWS * COLUMNS)} of {len(groups[label]):,}"
        for x, align, text, colour in ((MARGIN, "left", TITLES[label], INK), (WIDTH - MARGIN, "right", count, GREY)):
            figure.text(x / WIDTH, (top + 11) / height, text, ha=align, fontsize=11, color=colour)
        top -= len(block)
        figure.figimage(block, MARGIN, top)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    return picture.getvalue()


def add_frames(patches: Pixels) -> Pixels:
    """The patches with a thin frame around the centre, black and white, which is visible on any tissue."""
    framed = patches.copy()
    for margin, shade in ((2, 0), (1, 255)):
        low, high = (PATCH_SIZE - CENTRE_SIZE) // 2 - margin, (PATCH_SIZE + CENTRE_SIZE) // 2 + margin
        for line in (low, high - 1):
            framed[:, line, low:high] = framed[:, low:high, line] = shade
    return framed


def montage(patches: Pixels) -> Pixels:
    """Patches (n, 96, 96, 3) on one white image (height, width, 3), 8 a row, with gaps between them."""
    rows, step = -(-len(patches) // COLUMNS), PATCH_SIZE + GAP
    sheet = np.full((rows * step - GAP, COLUMNS * step - GAP, 3), 255, np.uint8)
    for index, patch in enumerate(patches):
        y, x = step * (index // COLUMNS), step * (index % COLUMNS)
        sheet[y : y + PATCH_SIZE, x : x + PATCH_SIZE] = patch
    return sheet
