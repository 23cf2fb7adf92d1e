"""Each bad input ends in one sentence that says what to do, and leaves nothing behind."""

import os
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from patch_sets import PatchSet, encoded, make_patch_set, plain_tiff, without_locks
from pydantic import ValidationError

from pcam_model.core.errors import ConfigError, DiskFullError, PcamError, SourceError
from pcam_model.data.pack import build_pack
from pcam_model.data.source import SourceConfig, fetch


def first(made: PatchSet) -> str:
    return f"train/{made.ids[0]}.tif"


def label_of_nothing(made: PatchSet) -> None:
    del made.files[first(made)]


def image_without_label(made: PatchSet) -> None:
    made.files["train/stranger.tif"] = made.files[first(made)]


def third_label(made: PatchSet) -> None:
    made.files["train_labels.csv"] = made.files["train_labels.csv"].replace(b",1\n", b",2\n", 1)


def label_twice(made: PatchSet) -> None:
    made.files["train_labels.csv"] += f"{made.ids[1]},0\n".encode()


def two_images(made: PatchSet) -> None:
    made.files[f"train/{made.ids[0]}.png"] = encoded(made.patches[0], "png")


def both_in_train_and_test(made: PatchSet) -> None:
    made.files[f"test/{made.ids[0]}.tif"] = made.files[first(made)]


def wrong_size(made: PatchSet) -> None:
    made.files[first(made)] = plain_tiff(np.zeros((95, 96, 3), np.uint8))


def grey(made: PatchSet) -> None:
    made.files[first(made)] = encoded(made.patches[0][..., 0], "png")


def cut_image(made: PatchSet) -> None:
    made.files[first(made)] = made.files[first(made)][:20_000]


def cut_png(made: PatchSet) -> None:
    del made.files[first(made)]
    made.files[f"train/{made.ids[0]}.png"] = encoded(made.patches[0], "png")[:9000]


def points_outside(made: PatchSet) -> None:
    made.files["../../evil.tif"] = b"x"


def points_to_root(made: PatchSet) -> None:
    made.files["/etc/evil.tif"] = b"x"


def no_labels(made: PatchSet) -> None:
    del made.files["train_labels.csv"]


def other_columns(made: PatchSet) -> None:
    made.files["train_labels.csv"] = b"name,label\na,1\n"


def labels_no_text(made: PatchSet) -> None:
    made.files["train_labels.csv"] = b"\xff\xfe\0\x81"


def empty_labels(made: PatchSet) -> None:
    made.files = {"train_labels.csv": b"id,label\n"}


def empty(made: PatchSet) -> None:
    made.files.clear()


def one_class(made: PatchSet) -> None:
    made.files["train_labels.csv"] = made.files["train_labels.csv"].replace(b",1\n", b",0\n")


CASES: list[tuple[Callable[[PatchSet], None], str]] = [
    (label_of_nothing, "names 1 patches that are not in train/"),
    (image_without_label, r"train/ holds 1 images without a label \(first: stranger\)"),
    (third_label, "gives the label '2'"),
    (label_twice, "twice"),
    (two_images, "has two images"),
    (both_in_train_and_test, "is in train/ and in test/"),
    (wrong_size, "96x95 RGB, not 96x96 RGB"),
    (grey, "96x96 L, not 96x96 RGB"),
    (cut_image, "not a whole TIFF, PNG or JPEG"),
    (cut_png, "not a whole TIFF, PNG or JPEG"),
    (no_labels, "there is no train_labels.csv among its 12 files"),
    (other_columns, "has the columns name,label; expected id,label"),
    (labels_no_text, "train_labels.csv cannot be read"),
    (empty_labels, "holds no patches"),
    (empty, "is empty"),
    (one_class, "all 12 labelled patches have the label 0"),
]


def refused(pack: Callable[..., object], path: Path, sentence: str, packs: Path) -> None:
    with pytest.raises(SourceError, match=sentence) as caught:
        pack(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert without_locks(packs) == []


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "folder"])
@pytest.mark.parametrize(("spoil", "sentence"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_set_is_refused_in_one_sentence(tmp_path, pack, spoil, sentence, as_zip):
    made = make_patch_set(12)
    spoil(made)
    path = made.zip(tmp_path / "a.zip") if as_zip else made.folder(tmp_path / "a")
    refused(pack, path, sentence, tmp_path / "packs")


@pytest.mark.parametrize("spoil", [points_outside, points_to_root])
def test_a_member_that_points_outside_is_refused(tmp_path, pack, spoil):
    made = make_patch_set(12)
    spoil(made)
    refused(pack, made.zip(tmp_path / "a.zip"), "points outside the archive", tmp_path / "packs")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_stands_twice_is_refused(tmp_path, pack):
    made = make_patch_set(12)
    path = made.zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(first(made), made.files[first(made)])
    refused(pack, path, "is twice in the archive", tmp_path / "packs")


def test_a_missing_file_is_named(tmp_path, pack):
    refused(pack, tmp_path / "none.zip", "there is nothing here", tmp_path / "packs")


def test_a_file_that_is_no_zip_is_refused(tmp_path, pack):
    (tmp_path / "a.zip").write_bytes(b"<html>log in, please</html>" * 50)
    refused(pack, tmp_path / "a.zip", "this is not a zip", tmp_path / "packs")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_zip_is_refused(tmp_path, pack, share):
    path = make_patch_set(12).zip(tmp_path / "a.zip")
    os.truncate(path, int(path.stat().st_size * share))
    refused(pack, path, "truncated or damaged", tmp_path / "packs")


def test_flipped_bytes_in_an_image_are_seen(tmp_path, pack):
    path = make_patch_set(12).zip(tmp_path / "a.zip", zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[100_000] ^= 1
    path.write_bytes(content)
    refused(pack, path, "checksum in the archive is wrong", tmp_path / "packs")


def test_the_competition_is_downloaded_by_a_training_run_only():
    with pytest.raises(ConfigError, match=r"source\.kind is kaggle"):
        fetch(SourceConfig(kind="kaggle"), 2)


def test_a_source_without_its_path_is_no_config():
    with pytest.raises(ValidationError, match=r"source\.path is empty"):
        SourceConfig(kind="path")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("a small tmpfs cannot be mounted here: not root, or no right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_and_left_clean(small_disk, kaggle_zip):
    config = SourceConfig(kind="path", path=str(kaggle_zip))
    with pytest.raises(DiskFullError, match="the disk is full") as caught:
        build_pack(fetch(config, 2), config, small_disk / "packs", 2)
    assert isinstance(caught.value, PcamError)
    assert without_locks(small_disk / "packs") == []


def test_a_checkpoint_that_finds_no_room_leaves_the_last_one(small_disk):
    from safetensors.torch import load_file

    from pcam_model.training.checkpoint import load_weights, save_weights

    path = small_disk / "latest.safetensors"
    save_weights(path, torch.nn.Linear(10, 1000), {"step": 1})
    before = path.read_bytes()
    with pytest.raises(DiskFullError, match="the disk is full"):
        save_weights(path, torch.nn.Linear(100_000, 1000), {"step": 2})
    assert [path.read_bytes()] == [file.read_bytes() for file in small_disk.iterdir() if file.is_file()]
    assert path.read_bytes() == before
    assert load_file(path)
    load_weights(path, torch.nn.Linear(10, 1000))
