"""Sets as people make them: lists from spreadsheets, folders with a desktop's litter, links, zips of other tools."""

import os
import stat
import zipfile

import pytest
from patch_sets import make_patch_set

from pcam_model.core.errors import SourceError
from pcam_model.data.pack import load_table


def relabelled(made, change):
    made.files["train_labels.csv"] = change(made.files["train_labels.csv"])
    return made


WRITTEN = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "carriage returns": lambda text: text.replace(b"\n", b"\r\n"),
    "quotes": lambda text: b"\n".join(b'"' + line.replace(b",", b'","') + b'"' for line in text.split()),
    "decimals": lambda text: text.replace(b",0\n", b",0.0\n").replace(b",1\n", b",1.0\n"),
    "blanks": lambda text: text.replace(b",", b" , ").replace(b"\n", b" \n"),
    "no last line end": lambda text: text.rstrip(),
    "blank lines": lambda text: text.replace(b"\n", b"\n\n"),
    "another column": lambda text: text.replace(b"\n", b",x\n").replace(b"label,x", b"label,note"),
    "columns the other way": lambda text: b"\n".join(b",".join(line.split(b",")[::-1]) for line in text.split()),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_labels_are_read_however_a_spreadsheet_writes_them(tmp_path, pack, how):
    made = make_patch_set(8)
    rows = load_table(pack(relabelled(made, WRITTEN[how]).zip(tmp_path / "a.zip")))
    assert dict(zip(rows["id"], rows["label"], strict=True)) == dict(zip(made.ids, made.labels, strict=True))


MISREAD = {
    "half": (lambda text: text.replace(b",1\n", b",0.5\n", 1), "gives the label '0.5'"),
    "empty label": (lambda text: text.replace(b",1\n", b",\n", 1), "gives the label ''"),
    "empty id": (lambda text: text + b",1\n", "has 1 lines without an id"),
    "semicolons": (lambda text: text.replace(b",", b";"), "has the columns id;label; expected id,label"),
    "more fields than names": (lambda text: text.replace(b",1\n", b",1,x\n"), "cannot be read"),
    "a nameless column": (lambda text: text.replace(b"\n", b",x\n").replace(b"label,x", b"label"), "more columns"),
    "sixteen bit text": (lambda text: text.decode().encode("utf-16"), "cannot be read .it is not UTF-8"),
    "nothing": (lambda text: b"", "cannot be read"),
    "ids with endings": (lambda text: text.replace(b",0", b".tif,0").replace(b",1", b".tif,1"), "take the ending"),
    "ids in upper case": (lambda text: text.upper().replace(b"ID,LABEL", b"id,label"), "upper and lower case"),
}  # fmt: skip


@pytest.mark.parametrize("how", MISREAD)
def test_labels_that_mean_nothing_are_refused(tmp_path, pack, how):
    change, sentence = MISREAD[how]
    with pytest.raises(SourceError, match=sentence) as caught:
        pack(relabelled(make_patch_set(8), change).zip(tmp_path / "a.zip"))
    assert "\n" not in str(caught.value)


def test_a_slide_map_is_read_as_kindly(tmp_path, pack):
    made = make_patch_set(6)
    lines = "".join(f'"{i}" , "s{n % 2}"\r\n' for n, i in enumerate(made.ids))
    (tmp_path / "map.csv").write_bytes(b"\xef\xbb\xbfid,wsi\r\n" + lines.encode())
    rows = load_table(pack(made.zip(tmp_path / "a.zip"), slides=str(tmp_path / "map.csv")))
    assert rows["slide"].tolist() == ["s0", "s1"] * 3


LITTER = [".DS_Store", "train/.DS_Store", "train/._x.tif", "train/Thumbs.db", "__MACOSX/._train", "desktop.ini",
          "__MACOSX/train/._x.tif", "sample_submission.csv", "README.md"]  # fmt: skip


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "folder"])
@pytest.mark.parametrize("top", ["", "patches/"])
def test_a_desktops_litter_is_left_alone(tmp_path, pack, as_zip, top):
    made = make_patch_set(6, top=top)
    made.files |= {(name if "MACOSX" in name else top + name): b"litter" for name in LITTER}
    assert pack(made.zip(tmp_path / "a.zip") if as_zip else made.folder(tmp_path / "a")).count == 6


def test_links_in_a_folder_are_followed_and_loops_are_no_matter(tmp_path, pack):
    made = make_patch_set(6)
    disk = made.folder(tmp_path / "disk")
    folder = tmp_path / "a"
    folder.mkdir()
    os.symlink(disk / "train", folder / "train")
    os.symlink(disk / "train_labels.csv", folder / "train_labels.csv")
    os.symlink(folder, folder / "again")
    assert pack(folder).count == 6


def test_a_link_to_nothing_and_a_pipe_are_no_images(tmp_path, pack):
    folder = make_patch_set(6).folder(tmp_path / "a")
    os.mkfifo(folder / "train" / "pipe.tif")
    assert pack(folder).count == 6
    lost = next((folder / "train").glob("*[0-9a-f].tif"))
    lost.unlink()
    os.symlink(tmp_path / "nowhere", lost)
    with pytest.raises(SourceError, match="names 1 patches that are not in train/"):
        pack(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path, pack):
    folder = make_patch_set(6).folder(tmp_path / "a")
    next((folder / "train").iterdir()).chmod(0)
    with pytest.raises(SourceError, match="cannot be read .Permission denied"):
        pack(folder)


def patched(path, at, *changes):
    """Change the records of each member in the list of contents: (offset, bytes)."""
    content = bytearray(path.read_bytes())
    start = content.find(b"PK\1\2", at)
    while start >= 0:
        for offset, new in changes:
            content[start + offset : start + offset + len(new)] = new
        start = content.find(b"PK\1\2", start + 4)
    path.write_bytes(content)
    return path


def test_an_encrypted_archive_is_refused(tmp_path, pack):
    path = patched(make_patch_set(6).zip(tmp_path / "a.zip"), 0, (8, b"\1\0"))
    with pytest.raises(SourceError, match="it is encrypted"):
        pack(path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(tmp_path, pack, kind):
    with pytest.raises(SourceError, match="another way than deflate"):
        pack(make_patch_set(6).zip(tmp_path / "a.zip", kind))


def test_a_link_in_an_archive_is_refused(tmp_path, pack):
    path = make_patch_set(6).zip(tmp_path / "a.zip")
    link = zipfile.ZipInfo("train/x.tif")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(SourceError, match=r"train/x\.tif is a link"):
        pack(path)


def test_a_zip64_and_a_streamed_zip_and_one_behind_other_bytes_are_read(tmp_path, pack):
    made = make_patch_set(6)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in made.files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    with (
        open(tmp_path / "b.zip", "wb") as file,
        zipfile.ZipFile(Unseekable(file), "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, content in made.files.items():
            archive.writestr(name, content)
    (tmp_path / "c.zip").write_bytes(b"#!/bin/sh\n" * 100 + made.zip(tmp_path / "plain.zip").read_bytes())
    assert len({pack(tmp_path / f"{name}.zip").digest for name in ("a", "b", "c", "plain")}) == 1


class Unseekable:
    """A file as a pipe is one: sizes can only follow the content."""

    def __init__(self, file):
        self.file = file

    def write(self, content):
        return self.file.write(content)

    def flush(self):
        self.file.flush()
