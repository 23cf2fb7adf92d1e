"""PCam's HDF5 files: camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5[.gz], _meta.csv, and others like them."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from pcam_model.core.errors import SourceError, first_line
from pcam_model.data.file_kinds import describe_wrong_content
from pcam_model.data.hdf5_names import id_prefix, is_packed, stem_of
from pcam_model.data.image import PATCH_BYTES, PATCH_SIZE, Patch, PatchError
from pcam_model.data.official_files import OfficialSplit, find_splits, gunzip, verify_published_md5
from pcam_model.data.patch_source import PatchSource

Labels = np.ndarray[tuple[int], np.dtype[np.int64]]

MAX_LABEL_BYTES = 1 << 26
LOCKED = {errno.EAGAIN, errno.ENOLCK}
NOT_GIVEN = {errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}
LINK_KINDS = {h5py.SoftLink: "a soft link", h5py.ExternalLink: "an external link"}
MAX_LABELS = 1 << 26  # PCam's largest file has 262,144
# Chunks may hold many patches: a cache of this size has each decompressed about once.
CHUNK_CACHE_BYTES = 1 << 26


class OfficialPatches(PatchSource):
    """The patches of PCam's HDF5 files, with the authors' splits and slides."""

    def __init__(self, path: Path, scratch: Path, *, verify_md5: bool) -> None:
        """Open the files of all splits.

        Args:
            path: a folder of such files, or one of them.
            scratch: where packed images are unpacked while they are read.
            verify_md5: whether files that are not the published ones are refused.

        Raises:
            SourceError: a file is missing, damaged or not the published one.
        """
        splits = find_splits(path)
        if verify_md5:
            verify_published_md5(splits)
        self.unpacked: list[Path] = []
        self.files: list[Hdf5Patches] = []
        try:
            self.table = pd.concat([self._open(split, scratch) for split in splits], ignore_index=True)
        except BaseException:
            self.close()
            raise
        self.starts = np.cumsum([0] + [file.count for file in self.files])

    def _open(self, split: OfficialSplit, scratch: Path) -> pd.DataFrame:
        """Open one split's images; its rows of the table."""
        labels = read_labels(split.y)
        path = split.x
        if is_packed(path):
            path = scratch / f"{stem_of(path)}.h5"
            self.unpacked.append(path)
            gunzip(split.x, path, len(labels) * (PATCH_BYTES + 4096) + (1 << 26))
        self.files.append(Hdf5Patches(path, len(labels)))
        return pd.DataFrame(
            {
                "id": [f"{id_prefix(split.x)}-{row:06d}" for row in range(len(labels))],
                "label": pd.array(labels, dtype="Int8"),
                "slide": read_slides(split.meta, labels) if split.meta else np.full(len(labels), None, object),
                "origin": split.name,
            }
        )

    def patch(self, row: int) -> Patch:
        """The patch in this row: uint8 (96, 96, 3). Raises PatchError. Thread-safe."""
        index = int(np.searchsorted(self.starts, row, "right")) - 1
        return self.files[index].patch(row - int(self.starts[index]))

    def close(self) -> None:
        """Close the files, and remove the unpacked ones."""
        for file in self.files:
            file.close()
        for path in self.unpacked:
            path.unlink(missing_ok=True)


class Hdf5Patches:
    """The dataset `x` of one file: uint8 (N, 96, 96, 3)."""

    def __init__(self, path: Path, count: int | None = None) -> None:
        """Open the file. Raises SourceError where it does not hold patches, `count` of them where that is given."""
        self.path = path
        self.file = open_hdf5(path, rdcc_nbytes=CHUNK_CACHE_BYTES)
        self.handle = os.open(path, os.O_RDONLY)
        try:
            with hdf5_errors(path):
                self.data = get_dataset(self.file, path, "x")
                self.count = self._checked_count(count)
                # Contiguous data is stored in the file as it is, and is read without HDF5's lock.
                self.offset = self.data.id.get_offset() if self.data.chunks is None else None
        except BaseException:
            self.close()
            raise

    def _checked_count(self, expected: int | None) -> int:
        shape, dtype = self.data.shape, self.data.dtype
        count = int(shape[0]) if expected is None and shape else expected or 0
        if count > MAX_LABELS:
            raise SourceError(f"{self.path}: x has {count:,} rows; expected {MAX_LABELS:,} at most; give another file")
        if shape[1:] != (PATCH_SIZE, PATCH_SIZE, 3) or dtype != np.uint8:
            raise SourceError(
                f"{self.path}: x is {dtype} {shape}; expected uint8 (N, {PATCH_SIZE}, {PATCH_SIZE}, 3), RGB from 0 "
                "to 255; write it so into a new file, or give another one"
            )
        if shape[0] != count:
            raise SourceError(
                f"{self.path}: x holds {shape[0]:,} patches, and its labels are {count:,}; expected one label a patch; "
                "download both again, or write them anew"
            )
        return count

    def patch(self, row: int) -> Patch:
        """The patch in this row. Raises PatchError."""
        try:
            if self.offset is None:
                patch: Patch = self.data[row]
                return patch
            content = os.pread(self.handle, PATCH_BYTES, self.offset + row * PATCH_BYTES)
        except Exception as error:  # as in hdf5_errors; the offset is the file's word
            raise PatchError(f"HDF5 cannot read it ({first_line(error)})") from error
        if len(content) != PATCH_BYTES:
            raise PatchError("the file ends before it")
        return np.frombuffer(content, np.uint8).reshape(PATCH_SIZE, PATCH_SIZE, 3)

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        os.close(self.handle)


def open_hdf5(path: Path | io.BytesIO, **options: int) -> h5py.File:
    """An open HDF5 file. Raises SourceError where it is none."""
    with hdf5_errors(path):
        return h5py.File(path, "r", **options)


@contextmanager
def hdf5_errors(path: Path | io.BytesIO) -> Iterator[None]:
    """Raise SourceError where the block, which reads a file, comes upon damage."""
    try:
        yield
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # h5py raises nearly anything on damage: OSError, RuntimeError, KeyError, ValueError ...
        wrong = (_describe_refusal(error) or describe_wrong_content(path)) if isinstance(path, Path) else ""
        reason = wrong or f"it is no whole HDF5 file ({first_line(error)}); download it again"
        raise SourceError(f"{path}: {reason}") from error


def _describe_refusal(error: Exception) -> str:
    """Why the system does not give a file that may be whole, with what to do; "" where it does."""
    number = error.errno if isinstance(error, OSError) else None
    if number in LOCKED:
        return "another program is writing it; wait until it has ended (or set HDF5_USE_FILE_LOCKING=FALSE)"
    if number in NOT_GIVEN:
        return f"it cannot be read ({os.strerror(number)}); make it readable, or copy it to a disk of this machine"
    return ""


def get_dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """The dataset of this name. Raises SourceError where there is none, or its values lie in other files."""
    link = file.get(name, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise _of_other_files(path, name, f"is {LINK_KINDS.get(type(link), 'a link')}")
    dataset = file.get(name)
    if isinstance(dataset, h5py.Dataset) and dataset.is_virtual:
        raise _of_other_files(path, name, "is a virtual dataset")
    if isinstance(dataset, h5py.Dataset) and dataset.external:
        raise _of_other_files(path, name, "has external storage")
    if not isinstance(dataset, h5py.Dataset):
        raise SourceError(
            f"{path}: it holds {', '.join(file) or 'nothing'}, not the dataset {name}; name the images x and the "
            "labels y, as PCam's files do, or give another path"
        )
    return dataset


def _of_other_files(path: Path, name: str, kind: str) -> SourceError:
    return SourceError(
        f"{path}: its dataset {name} {kind}, whose values may lie in any other file; expected values in the file "
        f"itself; write them into a new file (with h5py: new[{name!r}] = old[{name!r}][:]), and give that one"
    )


def read_labels(path: Path) -> Labels:
    """The labels of one split (N,), 0 or 1."""
    source = gunzip(path, None, MAX_LABEL_BYTES) if is_packed(path) else path
    with open_hdf5(source) as file, hdf5_errors(path):
        dataset = get_dataset(file, path, "y")
        size, rows = dataset.size, dataset.shape[0] if dataset.shape else 0
        if size is None or size > MAX_LABELS or size != rows or dataset.dtype.kind not in "biuf":
            raise SourceError(
                f"{path}: y is {dataset.dtype} {dataset.shape}; expected one number a patch, {MAX_LABELS:,} at most; "
                "give PCam's labels, or another file of them"
            )
        labels = np.asarray(dataset).reshape(-1)
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if len(wrong) or not len(labels):
        raise SourceError(f"{path}: label {labels[wrong[:1]]} in row {wrong[:1]} of {len(labels):,}; expected 0 or 1")
    return labels.astype(np.int64)


def read_slides(path: Path, labels: Labels) -> list[str]:
    """The slide of each patch of one split, from its meta file, whose labels must be the same as `labels`."""
    try:
        if path.stat().st_size > MAX_LABEL_BYTES:
            raise ValueError(f"it has more than {MAX_LABEL_BYTES:,} bytes")
        rows = pd.read_csv(path, usecols=["wsi", "center_tumor_patch"])
        slides, meta_labels = rows["wsi"].astype(str).tolist(), rows["center_tumor_patch"].astype(int).to_numpy()
    except (ValueError, KeyError, OSError) as error:
        raise SourceError(f"{path}: no slides can be read from it ({error}); expected PCam's meta CSV") from error
    if len(meta_labels) != len(labels) or (meta_labels != labels).any():
        raise SourceError(
            f"{path}: its {len(meta_labels):,} rows do not have the labels of the split's {len(labels):,} patches; the "
            "file belongs to another split, download it again"
        )
    return slides
