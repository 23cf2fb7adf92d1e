"""Small patch sets in the layouts in which other people have them."""

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from patch_sets import PatchSet, encoded, some_patches


def class_folders(
    names: tuple[str, str] = ("normal", "tumor"),
    *,
    count: int = 8,
    top: str = "",
    seed: int = 0,
    numbered: bool = False,
) -> PatchSet:
    """Images in a folder for each class; `numbered`: each folder counts from 0, as many programs write them."""
    patches, labels = some_patches(8, seed)
    files = {}
    for i, (patch, label) in enumerate(zip(patches, labels, strict=True)):
        files[f"{top}{names[label]}/{i // 2 if numbered else f'p{seed}_{i}'}.png"] = encoded(patch, "png")
    return PatchSet(files, [Path(name).stem for name in files], patches, labels)


def inner_zip(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The bytes of a zip."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def write_parquet(
    path: Path, count: int, seed: int, *, truth_values: bool = True, paths: bool = False, group_rows: int = 5
) -> None:
    """A shard as `datasets` writes them: image struct{bytes, path}, label."""
    patches, labels = some_patches(count, seed)
    images = [
        {"bytes": encoded(patch, "png"), "path": f"s{seed}_{i}.png" if paths else None}
        for i, patch in enumerate(patches)
    ]
    values = [bool(label) for label in labels] if truth_values else labels.tolist()
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(images, image_type), "label": values}), path, row_group_size=group_rows)


def write_hdf5(path: Path, count: int = 4, seed: int = 0, datasets: str = "xy") -> Path:
    """An HDF5 file with x, y or both."""
    pixels, labels = some_patches(count, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name in datasets:
            file.create_dataset(name, data=pixels if name == "x" else labels.astype(np.uint8).reshape(-1, 1, 1, 1))
    return path
