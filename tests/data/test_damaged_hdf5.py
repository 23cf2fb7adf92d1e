"""Damage in the inner structure of an HDF5 file is one sentence, whatever h5py makes of it."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from pcam_model.core.errors import SourceError
from pcam_model.data.hdf5 import Hdf5Patches, read_labels
from pcam_model.data.image import PatchError
from pcam_model.data.image_inputs import Images

RAISED = [RuntimeError("Unable to get group info\nring type mismatch"), KeyError("x"), ValueError("x"), OSError("x")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a_x.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((3, 96, 96, 3), np.uint8))
        file.create_dataset("y", data=np.zeros(3, np.int64))
    return tmp_path / "a_x.h5"


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_a_damaged_group_is_one_sentence(path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(h5py.Group, "get", fail)
    for read in (read_labels, Hdf5Patches, lambda path: Images([path])):
        with pytest.raises(SourceError, match=r"a_x\.h5: it is no whole HDF5 file \([^\n]*; download it again$"):
            read(path)


def test_a_damaged_header_of_the_group_is_one_sentence(path: Path) -> None:
    content = path.read_bytes()
    start = content.index(b"TREE")
    path.write_bytes(content[:start] + b"\xff" * 24 + content[start + 24 :])
    open_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for read in (read_labels, Hdf5Patches):
        with pytest.raises(SourceError, match="no whole HDF5 file"):
            read(path)
    assert len(os.listdir("/proc/self/fd")) == open_files  # noqa: PTH208


@pytest.mark.parametrize("offset", [1 << 62, 1 << 64, -1 << 40])
def test_an_offset_out_of_the_file_sets_the_patch_aside(path: Path, offset: int) -> None:
    patches = Hdf5Patches(path)
    patches.offset = offset
    with pytest.raises(PatchError):
        patches.patch(1)
    patches.close()
