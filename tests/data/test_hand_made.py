"""Data sets made by hand: tables from spreadsheets, a desktop's hidden files, links, zips of other tools."""

import os
import stat
import zipfile

import pytest
from patch_sets import make_patch_set

from pcam_model.core.errors import SourceError
from pcam_model.data.pack import load_table


def with_labels(dataset, change):
    dataset.files["train_labels.csv"] = change(dataset.files["train_labels.csv"])
    return dataset


WRITTEN = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "carriage returns": lambda text: text.replace(b"\n", b"\r\n"),
    "quotes": lambda text: b"\n".join(b'"' + line.replace(b",", b'","') + b'"' for line in text.split()),
    "decimals": lambda text: text.replace(b",0\n", b",0.0\n").replace(b",1\n", b",1.0\n"),
    "blanks": lambda text: text.replace(b",", b" , ").replace(b"\n", b" \n"),
    "no last line end": lambda text: text.rstrip(),
    "blank lines": lambda text: text.replace(b"\n", b"\n\n"),
    "another column": lambda text: text.replace(b"\n", b",x\n").replace(b"label,x", b"label,note"),
    "semicolons": lambda text: text.replace(b",", b";"),
    "Excel's separator line": lambda text: b"sep=;\r\n" + text.replace(b",", b";").replace(b"\n", b"\r\n"),
    "decimal commas": lambda text: text.replace(b",", b";").replace(b";0\n", b";0,0\n").replace(b";1\n", b";1,0\n"),
    "tabs": lambda text: text.replace(b",", b"\t"),
    "Excel's Unicode text": lambda text: text.replace(b",", b"\t").decode().encode("utf-16"),
    "Excel's empty cells": lambda text: text.replace(b"\n", b",,\n") + b",,,\n,,,\n",
    "R's row names": lambda text: b"".join(
        b'"%d",%b\n' % (n, line) if n else b'"",%b\n' % line for n, line in enumerate(text.split())
    ),
    "ids with endings": lambda text: text.replace(b",0", b".tif,0").replace(b",1", b".tif,1"),
    "ids with folders": lambda text: b"id,label\n" + b"".join(b"train/%b\n" % line for line in text.split()[1:]),
    "ids in upper case": lambda text: text.upper(),
    "words": lambda text: text.replace(b",0\n", b",normal\n").replace(b",1\n", b",Tumor\n"),
    "truth values": lambda text: text.replace(b",0\n", b",FALSE\n").replace(b",1\n", b",TRUE\n"),
    "columns the other way": lambda text: b"\n".join(b",".join(line.split(b",")[::-1]) for line in text.split()),
}


@pytest.mark.parametrize("variant", WRITTEN)
def test_labels_are_read_however_a_spreadsheet_writes_them(tmp_path, pack, variant):
    dataset = make_patch_set(8)
    rows = load_table(pack(with_labels(dataset, WRITTEN[variant]).zip(tmp_path / "a.zip")))
    assert dict(zip(rows["id"], rows["label"], strict=True)) == dict(zip(dataset.ids, dataset.labels, strict=True))


MISREAD = {
    "half": (lambda text: text.replace(b",1\n", b",0.5\n", 1), "gives the label '0.5'"),
    "empty label": (lambda text: text.replace(b",1\n", b",\n", 1), "gives the label ''"),
    "empty id": (lambda text: text + b",1\n", "has 1 lines without an id"),
    "more fields than names": (lambda text: text.replace(b",1\n", b",1,x\n"), "cannot be read"),
    "a nameless column": (lambda text: text.replace(b"\n", b",x\n").replace(b"label,x", b"label"), "more columns"),
    "another encoding": (
        lambda text: text.replace(b"id", "\xefd".encode("latin-1"), 1),
        "cannot be read .it is not UTF-8",
    ),
    "lines without ids": (lambda text: text + b",0\n,1\n", "has 2 lines without an id"),
    "nothing": (lambda text: b"", "cannot be read"),
}


@pytest.mark.parametrize("variant", MISREAD)
def test_ambiguous_labels_are_refused(tmp_path, pack, variant):
    change, message = MISREAD[variant]
    with pytest.raises(SourceError, match=message) as caught:
        pack(with_labels(make_patch_set(8), change).zip(tmp_path / "a.zip"))
    assert "\n" not in str(caught.value)


def test_a_slide_map_is_read_however_a_spreadsheet_writes_it(tmp_path, pack):
    dataset = make_patch_set(6)
    lines = "".join(f'"{i}" , "s{n % 2}"\r\n' for n, i in enumerate(dataset.ids))
    (tmp_path / "map.csv").write_bytes(b"\xef\xbb\xbfid,wsi\r\n" + lines.encode())
    rows = load_table(pack(dataset.zip(tmp_path / "a.zip"), slides=str(tmp_path / "map.csv")))
    assert rows["slide"].tolist() == ["s0", "s1"] * 3


OTHER_FILES = [
    ".DS_Store",
    "train/.DS_Store",
    "train/._x.tif",
    "train/Thumbs.db",
    "__MACOSX/._train",
    "desktop.ini",
    "__MACOSX/train/._x.tif",
    "sample_submission.csv",
    "README.md",
]


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "folder"])
@pytest.mark.parametrize("top", ["", "patches/"])
def test_a_desktops_hidden_files_are_ignored(tmp_path, pack, as_zip, top):
    dataset = make_patch_set(6, top=top)
    dataset.files |= {(name if "MACOSX" in name else top + name): b"system" for name in OTHER_FILES}
    assert pack(dataset.zip(tmp_path / "a.zip") if as_zip else dataset.folder(tmp_path / "a")).count == 6


def test_links_in_a_folder_are_followed_and_loops_are_not(tmp_path, pack):
    dataset = make_patch_set(6)
    disk = dataset.folder(tmp_path / "disk")
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "train").symlink_to(disk / "train")
    (folder / "train_labels.csv").symlink_to(disk / "train_labels.csv")
    (folder / "again").symlink_to(folder)
    assert pack(folder).count == 6


def test_a_broken_link_and_a_pipe_are_no_images(tmp_path, pack):
    folder = make_patch_set(6).folder(tmp_path / "a")
    os.mkfifo(folder / "train" / "pipe.tif")
    assert pack(folder).count == 6
    image = next((folder / "train").glob("*[0-9a-f].tif"))
    image.unlink()
    image.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=rf"{image.name}: it is a link to {tmp_path}/nowhere, which is not there"):
        pack(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path, pack):
    folder = make_patch_set(6).folder(tmp_path / "a")
    next((folder / "train").iterdir()).chmod(0)
    with pytest.raises(SourceError, match=r"cannot be read \(Permission denied"):
        pack(folder)


def patch_directory(path, at, *changes):
    """Change each member's record in the central directory: (offset, bytes)."""
    content = bytearray(path.read_bytes())
    start = content.find(b"PK\1\2", at)
    while start >= 0:
        for offset, new in changes:
            content[start + offset : start + offset + len(new)] = new
        start = content.find(b"PK\1\2", start + 4)
    path.write_bytes(content)
    return path


def test_an_encrypted_archive_is_refused(tmp_path, pack):
    path = patch_directory(make_patch_set(6).zip(tmp_path / "a.zip"), 0, (8, b"\1\0"))
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
    dataset = make_patch_set(6)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in dataset.files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    with (
        (tmp_path / "b.zip").open("wb") as file,
        zipfile.ZipFile(Unseekable(file), "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, content in dataset.files.items():
            archive.writestr(name, content)
    (tmp_path / "c.zip").write_bytes(b"#!/bin/sh\n" * 100 + dataset.zip(tmp_path / "plain.zip").read_bytes())
    assert len({pack(tmp_path / f"{name}.zip").digest for name in ("a", "b", "c", "plain")}) == 1


class Unseekable:
    """A file that cannot seek, as a pipe: sizes can only follow the content."""

    def __init__(self, file):
        self.file = file

    def write(self, content):
        return self.file.write(content)

    def flush(self):
        self.file.flush()
