"""A small set in PCam's official HDF5 layout."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from patch_sets import some_patches

from pcam_model.data.official_files import PREFIX

COUNTS = {"train": 12, "valid": 6, "test": 4}


def official_folder(
    folder: Path,
    packed: bool = True,
    chunks: tuple[int, ...] | None = None,
    sides: Mapping[str, int] = COUNTS,
    meta: bool = True,
) -> Path:
    """Write x and y of each side, and their slides; `packed`: as .gz."""
    folder.mkdir()
    for seed, side in enumerate(sides):
        pixels, labels = some_patches(sides[side], seed)
        for what, data in (("x", pixels), ("y", labels.astype(np.uint8).reshape(-1, 1, 1, 1))):
            path = folder / f"{PREFIX}_{side}_{what}.h5"
            with h5py.File(path, "w") as file:
                file.create_dataset(what, data=data, chunks=chunks if what == "x" else None)
            if packed:
                path.with_suffix(".h5.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
                path.unlink()
        if meta:
            rows = pd.DataFrame({"coord_y": 1, "coord_x": 2, "tumor_patch": True, "center_tumor_patch": labels == 1})
            rows["wsi"] = [f"{side}_{i % 3}" for i in range(len(labels))]
            rows.to_csv(folder / f"{PREFIX}_{side}_meta.csv")
    return folder
