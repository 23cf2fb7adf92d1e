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
    counts: Mapping[str, int] = COUNTS,
    meta: bool = True,
) -> Path:
    """Write x, y and meta of each split with so many patches; `packed`: x and y as .gz."""
    folder.mkdir()
    for seed, split in enumerate(counts):
        pixels, labels = some_patches(counts[split], seed)
        for dataset, data in (("x", pixels), ("y", labels.astype(np.uint8).reshape(-1, 1, 1, 1))):
            path = folder / f"{PREFIX}_{split}_{dataset}.h5"
            with h5py.File(path, "w") as file:
                file.create_dataset(dataset, data=data, chunks=chunks if dataset == "x" else None)
            if packed:
                path.with_suffix(".h5.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
                path.unlink()
        if meta:
            rows = pd.DataFrame({"coord_y": 1, "coord_x": 2, "tumor_patch": True, "center_tumor_patch": labels == 1})
            rows["wsi"] = [f"{split}_{i % 3}" for i in range(len(labels))]
            rows.to_csv(folder / f"{PREFIX}_{split}_meta.csv")
    return folder
