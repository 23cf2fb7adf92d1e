"""Packs of generated patches: dyes of different hue, and windows of one piece of tissue."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.data.pack import Pack

Patches = NDArray[np.uint8]


def dye(number: int) -> NDArray[np.float64]:
    """The optical density (3,) of one of many dyes, of different hues."""
    angle = number * 2.399963  # the golden angle
    return np.array([0.5, 0.5, 0.5]) + 0.3 * np.array([np.cos(angle), np.sin(angle), -np.cos(angle)])


def stained(dyes: Sequence[int], seed: int = 0, size: int = 96) -> Patches:
    """A patch uint8 (size, size, 3) of each dye, with nuclei and glass at random and more or less of the dye."""
    random = np.random.default_rng(seed)
    patches = np.empty((len(dyes), size, size, 3), np.uint8)
    for patch, number in zip(patches, dyes, strict=True):
        amounts = random.uniform(0.5, 1.5) * random.gamma(2.0, 0.5, (size, size, 1))
        patch[:] = 255 * np.exp(-amounts * dye(number))
    return patches


def write_pack(folder: Path, patches: Patches, labels: Sequence[int], order: Sequence[int] | None = None) -> Pack:
    """A pack of these patches, named by their numbers, in any order of rows."""
    count = len(patches)
    rows = pd.DataFrame(
        {
            "id": [f"p{number:05d}" for number in range(count)],
            "label": pd.array(labels, dtype="Int8"),
            "slide": np.full(count, None, object),
            "origin": "train",
            "pixels": [str(hash(patch.tobytes())) for patch in patches],
            "pixel_std": 0.2,
        }
    )
    order = list(range(count)) if order is None else order
    folder.mkdir()
    np.save(folder / "patches.npy", patches[order])
    rows.iloc[order].reset_index(drop=True).to_parquet(folder / "patches.parquet", index=False)
    zero = (0.0, 0.0, 0.0)
    return Pack(folder=str(folder), digest="d", count=count, labelled=count, mean=zero, std=zero, source="test")
