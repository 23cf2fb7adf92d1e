"""Archives and files that the system, a disk or another program did not give whole, each named for what it is."""

import os
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from other_layouts import write_hdf5, write_parquet
from patch_sets import encoded, make_patch_set, some_patches
from unwritable import UNPRIVILEGED

from pcam_model.core.errors import SourceError
from pcam_model.data.image_inputs import Images

MakePack = Callable[..., Any]
WRITER = """
import h5py, sys
with h5py.File(sys.argv[1], "r+") as file:
    print("open", flush=True)
    sys.stdin.read()
"""
READER = """
import sys
from pathlib import Path
from pcam_model.core.errors import SourceError
from pcam_model.data.image_inputs import Images
try:
    Images([Path(sys.argv[1])])
except SourceError as error:
    print(error)
"""


def split(path: Path, first: Path, last: Path) -> None:
    """Divide a zip as `zip -s` does: the directory of the last part says that there was another one."""
    content = bytearray(path.read_bytes())
    end = content.rfind(b"PK\5\6")
    content[end + 4 : end + 8] = struct.pack("<HH", 1, 1)
    first.write_bytes(b"PK\7\x08" + content[:100_000])
    last.write_bytes(content[100_000:])
    path.unlink()


def test_a_part_of_a_split_archive_is_named_with_the_command_that_joins_it(tmp_path: Path, pack: MakePack) -> None:
    split(make_patch_set(12).zip(tmp_path / "whole.zip"), tmp_path / "a.z01", tmp_path / "a.zip")
    for name in ("a.zip", "a.z01"):
        with pytest.raises(SourceError, match=r"one part of a split archive; join all parts \(zip -s 0 a\.zip"):
            pack(tmp_path / name)
    content = make_patch_set(12).zip(tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip.001").write_bytes(content[:100_000])
    (tmp_path / "b.zip.002").write_bytes(content[100_000:])
    (tmp_path / "b.zip").unlink()
    for name in ("b.zip.001", "b.zip.002"):
        with pytest.raises(SourceError, match=r"join all parts \(cat b\.zip\.\* > b\.zip\), and give the result"):
            Images([tmp_path / name])
    subprocess.run("cat b.zip.* > b.zip", shell=True, cwd=tmp_path, check=True)  # as the message says
    assert pack(tmp_path / "b.zip").count == 12


def test_a_hard_link_in_a_tar_is_refused_with_the_option_that_helps(tmp_path: Path, pack: MakePack) -> None:
    folder = make_patch_set(6).folder(tmp_path / "a")
    first = min((folder / "train").iterdir())
    (folder / "test").mkdir()
    os.link(first, folder / "test" / "same.tif")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder, ".")
    with pytest.raises(SourceError, match=r"tar --dereference --hard-dereference"):
        pack(tmp_path / "a.tar")
    command = ["tar", "--dereference", "--hard-dereference", "-cf", tmp_path / "b.tar", "-C", folder, "."]
    subprocess.run(command, check=True)  # as the message says
    assert pack(tmp_path / "b.tar").count == 7


def test_an_image_that_is_empty_or_a_pointer_is_named_so(tmp_path: Path) -> None:
    wrong = {
        "a.png": (b"", "it is empty"),
        "b.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "run git lfs pull"),
        "c.tif": (bytes(30_000), "nothing but zeros, as after a power cut"),
    }
    for name, (content, _) in wrong.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "d.png").write_bytes(encoded(some_patches(1)[0][0], "png"))
    images = Images([tmp_path])
    for row, (_, message) in enumerate(wrong.values()):
        with pytest.raises(Exception, match=message):
            images.patch(row)
    assert images.patch(3).shape == (96, 96, 3)


def test_a_file_that_is_being_written_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "own.h5")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(SourceError, match="another program is writing it; wait until it has ended"):
            Images([path])
        writer.communicate("")
    assert len(Images([path])) == 4


@pytest.mark.parametrize("name", ["own.h5", "own.parquet"])
def test_a_file_that_may_not_be_read_is_not_said_to_be_damaged(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_hdf5(path) if name.endswith("h5") else write_parquet(path, 8, 0)
    path.chmod(0)
    command = [*UNPRIVILEGED, sys.executable, "-c", READER, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert f"{name}: it cannot be read (Permission denied); make it readable" in done.stdout, done.stderr


@pytest.mark.parametrize(("key", "message"), [("X", "it holds X, y"), ("images", "it holds images, y")])
def test_a_dataset_of_another_name_is_named(tmp_path: Path, key: str, message: str) -> None:
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file[key], file["y"] = some_patches(4)
    with pytest.raises(SourceError, match=message):
        Images([tmp_path / "own.h5"])
