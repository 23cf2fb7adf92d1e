"""Names of files and folders as other systems write them: read as they are meant, or refused; none is left out."""

import os
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from other_layouts import class_folders
from patch_sets import PatchSet, encoded, make_patch_set, some_patches
from unwritable import UNPRIVILEGED

from pcam_model.core.errors import SourceError
from pcam_model.data.file_names import class_of, is_system_file
from pcam_model.data.image import PatchError
from pcam_model.data.image_inputs import Images
from pcam_model.data.pack import Pack, load_table
from pcam_model.data.source import folder_digest

MakePack = Callable[..., Pack]


def labels_of(pack: Pack) -> dict[str, int]:
    table = load_table(pack)
    return dict(zip(table["id"], table["label"], strict=True))


def named_set(names: list[str]) -> PatchSet:
    """A Kaggle-layout set of PNG files with these ids."""
    patches, labels = some_patches(len(names))
    files = {f"train/{name}.png": encoded(patch, "png") for name, patch in zip(names, patches, strict=True)}
    lines = ["id,label", *(f"{name},{label}" for name, label in zip(names, labels, strict=True))]
    return PatchSet({**files, "train_labels.csv": "\n".join(lines).encode()}, names, patches, labels)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (0, ["no tumor", "non_cancerous", "not positive", "tumor_negative", "true negative", "label 0"]),
        (1, ["tumor_positive", "true positive", "has-metastases", "1 tumor", "class-1"]),
        (None, ["-1", ".1", "1.1", "0.5", "class -1", "non-normal", "not benign", "false_negative", "normal_tumor"]),
    ],
)
def test_a_name_with_two_meanings_is_no_class(label: int | None, names: list[str]) -> None:
    assert {name: class_of(name) for name in names} == dict.fromkeys(names, label)


def test_labels_of_minus_one_are_refused_and_never_read_as_tumour(tmp_path: Path, pack: MakePack) -> None:
    dataset = make_patch_set(8)
    dataset.files["train_labels.csv"] = dataset.files["train_labels.csv"].replace(b",1\n", b",-1\n", 1)
    with pytest.raises(SourceError, match=r"gives the label '-1' to .* \(1 such lines\)"):
        pack(dataset.folder(tmp_path / "a"))


def test_numbered_folders_in_class_folders_are_no_classes(tmp_path: Path, pack: MakePack) -> None:
    dataset = class_folders(("normal", "tumor"), top="cancer/")
    dataset.files = {
        name.replace("/p", f"/{number // 2 % 2}/p"): content
        for number, (name, content) in enumerate(dataset.files.items())
    }
    folder = dataset.folder(tmp_path / "a")
    with pytest.raises(SourceError, match=r"the folders of cancer/\w+/\d/p.* name both classes.*source\.classes="):
        pack(folder)
    built = pack(folder, classes=["normal", "tumor"])  # as the message says
    assert labels_of(built) == dict(zip(dataset.ids, dataset.labels, strict=True))


def test_letters_with_accents_are_the_same_however_they_are_composed(tmp_path: Path, pack: MakePack) -> None:
    ids = [f"gewebe_ä{number}" for number in range(6)]
    dataset = named_set(ids)
    dataset.files = {unicodedata.normalize("NFD", name): content for name, content in dataset.files.items()}
    built = pack(dataset.folder(tmp_path / "a"))
    names = (unicodedata.normalize("NFC", name) for name in labels_of(built))
    assert dict(zip(names, labels_of(built).values(), strict=True)) == dict(zip(ids, dataset.labels, strict=True))


class Unflagged(zipfile.ZipInfo):
    """A member whose name is UTF-8, as macOS writes it, without the flag that says so."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode("utf-8"), self.flag_bits & ~0x800


def test_names_in_a_zip_are_utf_8_also_without_the_flag_that_says_so(tmp_path: Path, pack: MakePack) -> None:
    dataset = named_set([f"gewebe_ä{number}" for number in range(6)])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in dataset.files.items():
            archive.writestr(Unflagged(name), content)
    assert labels_of(pack(tmp_path / "a.zip")) == dict(zip(dataset.ids, dataset.labels, strict=True))
    images = Images([tmp_path / "a.zip"])
    assert [images.name(row).id for row in range(6)] == dataset.ids


def test_a_name_that_is_no_utf_8_has_its_bytes_as_codes(tmp_path: Path, pack: MakePack) -> None:
    folder = class_folders().folder(tmp_path / "a")
    (folder / "tumor" / "p0_3.png").rename(os.fsdecode(os.fsencode(folder) + b"/tumor/p\xe4.png"))
    built, images = pack(folder), Images([folder])
    assert r"p\xe4" in labels_of(built)
    assert r"tumor/p\xe4.png" in [images.name(row).file for row in range(len(images))]
    assert len([images.patch(row) for row in range(len(images))]) == 8
    assert folder_digest(folder)


def test_ids_may_be_paths_where_slides_have_files_of_the_same_names(tmp_path: Path, pack: MakePack) -> None:
    dataset = named_set([f"slide{number // 3}/{number % 3}" for number in range(6)])
    folder = dataset.folder(tmp_path / "a")
    expected = dict(zip(dataset.ids, dataset.labels, strict=True))
    assert labels_of(pack(folder)) == expected
    table = folder / "train_labels.csv"
    lines = [f"train\\slide{number // 3}\\{number % 3}.png,{number % 2}" for number in range(6)]
    table.write_text("\n".join(["id,label", *lines]))
    assert labels_of(pack(folder)) == expected


def test_two_files_of_one_name_are_told_apart_by_ids_with_folders(tmp_path: Path, pack: MakePack) -> None:
    dataset = named_set(["a", "b", "c", "d"])
    dataset.files["train/more/a.png"] = dataset.files["train/a.png"]
    with pytest.raises(
        SourceError, match=r"the id a has two images.*or write all ids with their folders, as FOLDER/ID"
    ):
        pack(dataset.folder(tmp_path / "a"))
    dataset.files["train_labels.csv"] += b"\nmore/a,0"  # as the message says
    assert pack(dataset.folder(tmp_path / "a")).count == 5


def test_what_windows_and_file_servers_add_is_system_file(tmp_path: Path, pack: MakePack) -> None:
    dataset = make_patch_set(6)
    dataset.files |= {f"{name}:Zone.Identifier": b"[ZoneTransfer]" for name in list(dataset.files)}
    folder = dataset.folder(tmp_path / "a")
    for snapshot in ("~snapshot", "#snapshot", "@Recycle"):
        shutil.copytree(folder / "train", folder / snapshot / "daily" / "train")
    assert (pack(folder).count, len(Images([folder])), Images([folder]).ignored_files) == (6, 6, [])
    assert is_system_file("train/x.tif\uf03aZone.Identifier")


def test_a_broken_link_to_an_image_is_an_image_that_cannot_be_read(tmp_path: Path, pack: MakePack) -> None:
    folder = class_folders().folder(tmp_path / "a")
    (folder / "tumor" / "p0_3.png").unlink()
    (folder / "tumor" / "p0_3.png").symlink_to("../.git/annex/objects/x.png")
    (folder / "latest").symlink_to("gone")
    images = Images([folder])
    assert len(images) == 8
    row = [images.name(row).id for row in range(8)].index("p0_3")
    with pytest.raises(PatchError, match=r"a link to \.\./\.git/annex/objects/x\.png, which is not there"):
        images.patch(row)
    with pytest.raises(SourceError, match=r"p0_3\.png: it is a link to .*, which is not there; bring"):
        pack(folder)


def test_images_in_folders_too_deep_are_refused_and_never_left_out(tmp_path: Path, pack: MakePack) -> None:
    folder = class_folders(top="set/").folder(tmp_path / "a")
    deep = folder / "set" / "tumor" / "1" / "2" / "3" / "4"
    deep.mkdir(parents=True)
    (deep / "notes.txt").write_text("no image")
    assert pack(folder).count == 8
    (deep / "x.png").write_bytes(encoded(some_patches(1)[0][0], "png"))
    with pytest.raises(SourceError, match=r"x\.png lies more than 5 folders deep; give a folder further down"):
        pack(folder)
    assert pack(folder / "set", classes=["normal", "tumor"]).count == 9  # as the message says


LISTING = """
import sys
from pathlib import Path
from pcam_model.core.errors import SourceError
from pcam_model.data.image_inputs import Images
try:
    print(len(Images([Path(sys.argv[1])])), "images")
except SourceError as error:
    print(error)
"""


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    folder = class_folders().folder(tmp_path / "a")
    (folder / "lost+found").mkdir(mode=0)
    (folder / "tumor" / "more").mkdir(mode=0)
    command = [*UNPRIVILEGED, sys.executable, "-c", LISTING, folder]

    def listed() -> str:
        root = Path(__file__).parents[2]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout

    assert "tumor/more: this folder cannot be read (Permission denied); make it readable, or move it" in listed()
    (folder / "tumor" / "more").rmdir()
    assert listed() == "8 images\n"
