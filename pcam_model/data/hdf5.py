"""PCam's official files: camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5[.gz] and _meta.csv."""

import io
import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from pcam_model.core.errors import SourceError
from pcam_model.data.image import PATCH_BYTES, SIZE, Patch, PatchError
from pcam_model.data.official_files import Part, check_published, find_parts, unpacked

Labels = np.ndarray[tuple[int], np.dtype[np.int64]]


class OfficialPatches:
    """The patches of a folder of PCam's official files, with their own sides and slides."""

    def __init__(self, folder: Path, scratch: Path, *, published: bool) -> None:
        """`scratch` takes the unpacked images while they are read; `published`: refuse files that are not PCam's."""
        self.parts = find_parts(folder)
        if published:
            check_published(self.parts)
        self.scratch: list[Path] = []
        self.images: list[Images] = []
        try:
            self.table = pd.concat([self.opened(part, scratch) for part in self.parts], ignore_index=True)
        except BaseException:
            self.close()
            raise
        self.starts = np.cumsum([0] + [images.count for images in self.images])

    def opened(self, part: Part, scratch: Path) -> pd.DataFrame:
        """Open one part's images, and give its rows."""
        labels = read_labels(part.y)
        path = part.x
        if path.suffix == ".gz":
            path = scratch / path.stem
            self.scratch.append(path)
            unpacked(part.x, path, len(labels) * (PATCH_BYTES + 4096) + (1 << 26))
        self.images.append(Images(path, len(labels)))
        return pd.DataFrame(
            {
                "id": [f"pcam-{part.side}-{row:06d}" for row in range(len(labels))],
                "label": pd.array(labels, dtype="Int8"),
                "slide": read_slides(part.meta, labels) if part.meta else np.full(len(labels), None, object),
                "origin": part.side,
            }
        )

    def patch(self, row: int) -> Patch:
        """The patch in this row: uint8 (96, 96, 3). Any thread may call it."""
        part = int(np.searchsorted(self.starts, row, "right")) - 1
        return self.images[part].patch(row - int(self.starts[part]))

    def close(self) -> None:
        """Let go of the files, and remove what was unpacked."""
        for images in self.images:
            images.close()
        for path in self.scratch:
            path.unlink(missing_ok=True)


class Images:
    """The dataset `x` of one file: uint8 (N, 96, 96, 3)."""

    def __init__(self, path: Path, count: int | None = None) -> None:
        """Opens the file; raises SourceError when it does not hold patches, `count` of them where that is known."""
        self.path = path
        # Chunks may hold many patches: a cache of 64 MB has each unpacked about once.
        self.file = opened(path, rdcc_nbytes=1 << 26)
        self.handle = os.open(path, os.O_RDONLY)
        try:
            self.data = dataset(self.file, path, "x")
        except SourceError:
            self.close()
            raise
        shape, kind = self.data.shape, self.data.dtype
        self.count = int(shape[0]) if count is None and shape else count or 0
        if shape != (self.count, SIZE, SIZE, 3) or kind != np.uint8:
            self.close()
            many, each = ("N", "row") if count is None else (count, "label")
            raise SourceError(
                f"{path}: x is {kind} {shape}; expected uint8 ({many}, {SIZE}, {SIZE}, 3), one patch a {each}; get it "
                "again"
            )
        # Contiguous data stands in the file as it is, and is read without HDF5's lock.
        self.start = self.data.id.get_offset() if self.data.chunks is None else None

    def patch(self, row: int) -> Patch:
        """The patch in this row. Raises PatchError."""
        if self.start is None:
            try:
                found: Patch = self.data[row]
            except OSError as error:
                raise PatchError(f"HDF5 cannot read it ({error})") from error
            return found
        content = os.pread(self.handle, PATCH_BYTES, self.start + row * PATCH_BYTES)
        if len(content) != PATCH_BYTES:
            raise PatchError("the file ends before it")
        return np.frombuffer(content, np.uint8).reshape(SIZE, SIZE, 3)

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()
        os.close(self.handle)


def opened(path: Path | io.BytesIO, **how: int) -> h5py.File:
    """An HDF5 file. Raises SourceError when it is none."""
    try:
        return h5py.File(path, "r", **how)
    except OSError as error:
        raise SourceError(f"{path}: it is no whole HDF5 file ({error}); download it again") from error


def dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """A dataset of a file. Raises SourceError when there is none of that name."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise SourceError(
            f"{path}: it holds {', '.join(file) or 'nothing'}, not the dataset {name}; is it PCam's file?"
        )
    return found


def read_labels(path: Path) -> Labels:
    """The labels of one part (N,), 0 or 1."""
    source = unpacked(path, None, 1 << 26) if path.suffix == ".gz" else path
    with opened(source) as file:
        labels = np.asarray(dataset(file, path, "y")).reshape(-1)
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if len(wrong) or not len(labels):
        raise SourceError(f"{path}: label {labels[wrong[:1]]} in row {wrong[:1]} of {len(labels):,}; labels are 0 or 1")
    return labels.astype(np.int64)


def read_slides(path: Path, labels: Labels) -> list[str]:
    """The slide of each patch of one part, from its meta file, whose labels must be the same."""
    try:
        rows = pd.read_csv(path)
        slides, said = rows["wsi"].astype(str).tolist(), rows["center_tumor_patch"].astype(int).to_numpy()
    except (ValueError, KeyError, OSError) as error:
        raise SourceError(f"{path}: no slides can be read from it ({error}); expected PCam's meta CSV") from error
    if len(said) != len(labels) or (said != labels).any():
        raise SourceError(
            f"{path}: its {len(said):,} rows and the {len(labels):,} labels do not tell the same of each patch; the "
            "file belongs to another part, get it again"
        )
    return slides
