"""Slides are found in folders, and their names are unique and safe."""

from pathlib import Path

import pytest

from pcam_model.core.errors import SourceError
from pcam_model.slides.listing import find_slides, slide_fingerprint


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_slides_are_found_at_any_depth_and_keep_their_folders_names(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs", tmp_path / "day 1/b.TIF", tmp_path / "notes.txt", tmp_path / ".hidden/c.svs")
    touch(*(tmp_path / "series" / f"{number}.dcm" for number in range(3)))
    found = find_slides([tmp_path])
    assert [slide.name for slide in found] == ["a", "day 1-b", "series"]
    assert found[2].path == str(tmp_path / "series" / "0.dcm")


def test_names_are_unique_whatever_is_given(tmp_path: Path) -> None:
    touch(tmp_path / "1/a.svs", tmp_path / "1/a.tif", tmp_path / "2/a.svs", tmp_path / "2/b.svs")
    paths = [
        tmp_path / "1/a.svs",
        tmp_path / "1/a.tif",
        tmp_path / "2/a.svs",
        tmp_path / "2/b.svs",
        tmp_path / "1/a.svs",
    ]
    names = [slide.name for slide in find_slides(paths)]
    assert len(names) == len(set(names)) == 4
    assert names[1] == "a.tif"
    assert names[3] == "b"
    assert [name.rpartition("-")[0] for name in (names[0], names[2])] == ["a.svs", "a.svs"]


def test_names_are_safe_as_folders(tmp_path: Path) -> None:
    (slide,) = find_slides([tmp_path / "..a\n:b\\c.svs"])
    assert slide.name == "_a__b_c"


def test_a_folder_without_slides_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match=r"no slide is among its 1 files; expected one of .*svs"):
        find_slides([tmp_path])


def test_a_replaced_slide_has_another_fingerprint(tmp_path: Path) -> None:
    touch(tmp_path / "a.mrxs", tmp_path / "a/Data0000.dat")
    before = slide_fingerprint(tmp_path / "a.mrxs")
    assert slide_fingerprint(tmp_path / "a.mrxs") == before
    (tmp_path / "a/Data0000.dat").write_bytes(b"other")
    assert slide_fingerprint(tmp_path / "a.mrxs") != before
    with pytest.raises(SourceError, match="cannot be read"):
        slide_fingerprint(tmp_path / "absent.svs")
