"""The advice of an error message works when it is followed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_layouts import class_folders, inner_zip, write_hdf5
from patch_sets import PatchSet, encoded, make_patch_set

from pcam_model.core.errors import SourceError
from pcam_model.data.source import SourceConfig

LABELS = "train_labels.csv"
SOME = encoded(np.full((96, 96, 3), 120, np.uint8), "png")


@dataclass
class Case:
    """A set that is refused, and what the message says to do."""

    spoil: Callable[[Path], None]
    message: str
    follow: Callable[[Path], dict[str, Any] | None]
    count: int
    """Patches in the pack that is built then."""
    make: Callable[[], PatchSet] = lambda: make_patch_set(8, test=2)


def images(folder: Path) -> list[Path]:
    return sorted((folder / "train").glob("*.tif"))


def edit_labels(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    """Change the lines of the table."""

    def edit(folder: Path) -> None:
        path = folder / LABELS
        path.write_text("\n".join(change(path.read_text().split())) + "\n")

    return edit


def without_last(lines: list[str]) -> list[str]:
    return lines[:-1]


def write(name: str, content: bytes = SOME) -> Callable[[Path], None]:
    def create(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return create


def move(name: str, target: str) -> Callable[[Path], None]:
    def rename(folder: Path) -> None:
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(folder / target)

    return rename


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def remove_image(folder: Path) -> None:
    images(folder)[0].unlink()


def remove_lines_without_image(folder: Path) -> None:
    present = {path.stem for path in images(folder)}
    edit_labels(lambda lines: [line for line in lines if line.partition(",")[0] in {"id", *present}])(folder)


def rename_images(folder: Path) -> None:
    for number, path in enumerate(images(folder)):
        path.rename(path.with_name(f"other{number}.tif"))


def write_names_as_ids(folder: Path) -> None:
    names = [path.stem for path in images(folder)]
    edit_labels(lambda lines: [lines[0], *(f"{name},{number % 2}" for number, name in enumerate(names))])(folder)


def spoil_first(folder: Path) -> None:
    images(folder)[0].write_bytes(b"no image")


def remove_first_with_label(folder: Path) -> None:
    name = images(folder)[0].stem
    images(folder)[0].unlink()
    edit_labels(lambda lines: [line for line in lines if not line.startswith(name)])(folder)


def copy_to_test(folder: Path) -> None:
    shutil.copy(images(folder)[0], folder / "test")


def remove_copies(folder: Path) -> None:
    for path in images(folder):
        (folder / "test" / path.name).unlink(missing_ok=True)


def write_submission(folder: Path) -> None:
    (folder / "sample_submission.csv").write_text("id,label\nmissing,0\n")


def pack_with_h5(folder: Path) -> None:
    remove("train")(folder)
    remove("test")(folder)
    remove(LABELS)(folder)
    (folder / "data.zip").write_bytes(inner_zip({"pcam.h5": write_hdf5(folder.parent / "x.h5").read_bytes()}))


def unpack(folder: Path) -> None:
    shutil.unpack_archive(folder / "data.zip", folder)


def wide_images(folder: Path) -> None:
    for path in images(folder):
        path.write_bytes(encoded(np.zeros((50, 50, 3), np.uint8), "tif"))


def right_images(folder: Path) -> None:
    made = make_patch_set(8)
    for path in images(folder):
        path.write_bytes(made.files[f"train/{path.name}"])


def first_label(value: str) -> Callable[[Path], None]:
    return edit_labels(lambda lines: [lines[0], f"{lines[1].partition(',')[0]},{value}", *lines[2:]])


CASES = {
    "a missing image": Case(remove_image, "download it again; else remove these lines", remove_lines_without_image, 9),
    "no image fits": Case(rename_images, "write the names of the images, without endings", write_names_as_ids, 10),
    "no image": Case(move("train", "../kept"), "there are no images; add them in train/", move("../kept", "train"), 10),
    "an image without label, added": Case(
        write("train/new.png"), "add their lines", edit_labels(lambda lines: [*lines, "new,1"]), 11
    ),
    "a third label": Case(first_label("2"), "correct these lines", first_label("0"), 10),
    "other words": Case(
        edit_labels(lambda lines: [lines[0], *(f"{line[:-2]},{'AB'[int(line[-1])]}" for line in lines[1:])]),
        "name both classes, 0 first, with source.classes",
        lambda folder: {"classes": ["A", "B"]},
        10,
    ),
    "a label twice": Case(
        edit_labels(lambda lines: [*lines, lines[1]]),
        "remove the repeated lines",
        edit_labels(lambda lines: lines[:-1]),
        10,
    ),
    "an empty id": Case(
        edit_labels(lambda lines: [*lines, ",1"]),
        "give each its id, or remove it",
        edit_labels(lambda lines: lines[:-1]),
        10,
    ),
    "other names of columns": Case(
        edit_labels(lambda lines: ["name,label", *lines[1:]]),
        "expected id,label; correct line 1",
        edit_labels(lambda lines: ["id,label", *lines[1:]]),
        10,
    ),
    "a file that is no image": Case(
        write("train/notes.txt"), "move or remove it", move("train/notes.txt", "notes.txt"), 10
    ),
    "in train and test": Case(copy_to_test, "remove the one in test/", remove_copies, 10),
    "an unfit submission": Case(write_submission, "remove test/ to go without", remove("test"), 8),
    "a bad image": Case(spoil_first, "remove it with its label", remove_first_with_label, 9),
    "a bad image, set aside": Case(
        spoil_first,
        "source.on_bad_patch=quarantine",
        lambda folder: {"on_bad_patch": "quarantine", "max_bad_fraction": 0.1},
        9,
    ),
    "images of another size": Case(wide_images, "give images of 96x96 RGB", right_images, 10),
    "a table of another name": Case(
        move(LABELS, "labels.csv"),
        f"if labels.csv holds the labels, save it as {LABELS}",
        move("labels.csv", LABELS),
        10,
    ),
    "no table": Case(
        remove(LABELS),
        r"source.classes=\[NORMAL,TUMOUR\]",
        lambda folder: (move("train", "a")(folder), move("test", "b")(folder), {"classes": ["a", "b"]})[-1],
        10,
    ),
    "HDF5 in an archive": Case(pack_with_h5, "unpack the archive, and give the folder", unpack, 4),
    "an image in no class": Case(
        write("stray.png"), r"move it to test/ \(unlabelled\)", move("stray.png", "test/stray.png"), 9, class_folders
    ),
    "an image in no class, moved": Case(
        write("stray.png"), "move it into one", move("stray.png", "tumor/stray.png"), 9, class_folders
    ),
    "classes of other names": Case(
        lambda folder: (move("normal", "N")(folder), move("tumor", "T")(folder))[0],
        r"\(N, T\) name no class",
        lambda folder: {"classes": ["N", "T"]},
        8,
        class_folders,
    ),
    "images in no folder": Case(
        lambda folder: [path.rename(folder / path.name) for path in folder.glob("*/*.png")].clear(),
        "move the images into two folders, 0 and 1",
        lambda folder: [
            move(path.name, f"{int(path.stem[-1]) % 2}/{path.name}")(folder) for path in folder.glob("*.png")
        ].clear(),
        8,
        class_folders,
    ),
    "one class": Case(remove("tumor"), "add patches of the other class", write("tumor/one.png"), 5, class_folders),
}


@pytest.mark.parametrize("case", CASES)
def test_the_advice_works(tmp_path: Path, pack: Callable[..., Any], case: str) -> None:
    spoilt = CASES[case]
    folder = spoilt.make().folder(tmp_path / "a")
    spoilt.spoil(folder)
    with pytest.raises(SourceError, match=spoilt.message) as caught:
        pack(folder)
    assert "\n" not in str(caught.value)
    keys = spoilt.follow(folder) or {}
    assert pack(folder, **keys).count == spoilt.count


def test_an_unknown_class_is_named_with_the_folders_that_are_there(tmp_path: Path, pack: Callable[..., Any]) -> None:
    folder = class_folders(("good", "bad")).folder(tmp_path / "a")
    with pytest.raises(SourceError, match=r"no folder is called x or y.*its folders are bad, good"):
        pack(folder, classes=["x", "y"])


def test_ids_that_a_spreadsheet_rewrote_as_numbers_are_explained(tmp_path: Path, pack: Callable[..., Any]) -> None:
    folder = make_patch_set(4).folder(tmp_path / "a")
    edit_labels(lambda lines: [lines[0], "1.23E+39,0", *lines[2:]])(folder)
    with pytest.raises(SourceError, match="a spreadsheet has rewritten ids as numbers"):
        pack(folder)


def test_leading_zeros_that_a_spreadsheet_took_are_found_again(
    tmp_path: Path, pack: Callable[..., Any], messages: pytest.LogCaptureFixture
) -> None:
    folder = make_patch_set(4).folder(tmp_path / "a")
    for number, path in enumerate(images(folder)):
        path.rename(path.with_name(f"{number:05}.tif"))
    (folder / LABELS).write_text("id,label\n0,0\n1,1\n2,0\n3,1\n")
    assert pack(folder).count == 4
    assert "are compared with the images' names without leading zeros" in messages.text


def test_a_pack_is_no_source(tmp_path: Path, pack: Callable[..., Any]) -> None:
    built = pack(make_patch_set(4).folder(tmp_path / "a"))
    with pytest.raises(SourceError, match="this is a pack that was made of a source; give the path of that source"):
        pack(Path(built.folder))


@pytest.mark.parametrize("classes", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_classes_are_two(classes: list[str]) -> None:
    with pytest.raises(ValueError, match="name two classes, 0 first, or none"):
        SourceConfig.model_validate({"classes": classes})
