"""Members of a zip that lie together are read and inflated at once, and one by one where one of them is broken."""

import os
import zipfile
from pathlib import Path

import pytest
from patch_sets import make_patch_set

from pcam_model.data.image import PatchError
from pcam_model.data.layouts import open_patches
from pcam_model.data.zip_archive import Zip


def images_of(path: Path) -> tuple[Zip, list[str]]:
    archive = Zip(path)
    return archive, [name for name in archive.names() if name.endswith(".tif")]


def test_a_block_is_read_at_once_and_holds_what_each_member_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, names = images_of(make_patch_set(12).zip(tmp_path / "a.zip"))
    expected, reads, pread = [archive.read(name) for name in names], list[int](), os.pread

    def counted(file: int, size: int, offset: int) -> bytes:
        reads.append(size)
        return pread(file, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert archive.read_block(names) == expected
    assert archive.read_block(names[::-1]) == expected[::-1]
    assert len(reads) == 2
    archive.close()


@pytest.mark.parametrize("field", ["crc", "size", "compressed_size", "name", "offset"])
def test_a_block_with_a_broken_member_is_read_member_by_member(tmp_path: Path, field: str) -> None:
    path = make_patch_set(12).zip(tmp_path / "a.zip")
    source = open_patches(path, tmp_path)
    archive, names = source.container, source.members  # type: ignore[attr-defined]
    member = archive.members[names[5]]
    changed = b"x" if field == "name" else getattr(member, field) - 20
    archive.members[names[5]] = member._replace(**{field: changed})
    assert archive.read_block(names) is None
    patches = source.patches(range(12))
    assert [row for row, patch in enumerate(patches) if isinstance(patch, PatchError)] == [5]
    source.close()


def test_large_distant_and_stored_members_are_no_block(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(f"zeros{number}.tif", bytes(1 << 20))
        archive.writestr("first.tif", os.urandom(99))
        archive.writestr("between.tif", os.urandom(9_999))
        archive.writestr("last.tif", os.urandom(99))
        archive.writestr("stored.tif", b"x", zipfile.ZIP_STORED)
    opened, names = images_of(path)
    assert opened.read_block(names[:2]) == [bytes(1 << 20)] * 2
    for each in (names[:8], ["first.tif", "last.tif"], ["stored.tif"]):
        assert opened.read_block(each) is None
    opened.close()
