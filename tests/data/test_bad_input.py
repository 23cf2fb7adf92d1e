"""Bad input is refused with one sentence that says what to do, and leaves nothing behind."""

import os
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from patch_sets import PatchSet, encoded, make_patch_set, plain_tiff, without_locks

from pcam_model.core.errors import ConfigError, DiskFullError, PcamError, SourceError
from pcam_model.data.pack import build_pack
from pcam_model.data.source import SourceConfig, fetch


def first_image(dataset: PatchSet) -> str:
    return f"train/{dataset.ids[0]}.tif"


def label_of_nothing(dataset: PatchSet) -> None:
    del dataset.files[first_image(dataset)]


def image_without_label(dataset: PatchSet) -> None:
    dataset.files["train/stranger.tif"] = dataset.files[first_image(dataset)]


def third_label(dataset: PatchSet) -> None:
    dataset.files["train_labels.csv"] = dataset.files["train_labels.csv"].replace(b",1\n", b",2\n", 1)


def label_twice(dataset: PatchSet) -> None:
    dataset.files["train_labels.csv"] += f"{dataset.ids[1]},0\n".encode()


def two_images(dataset: PatchSet) -> None:
    dataset.files[f"train/{dataset.ids[0]}.png"] = encoded(dataset.patches[0], "png")


def both_in_train_and_test(dataset: PatchSet) -> None:
    dataset.files[f"test/{dataset.ids[0]}.tif"] = dataset.files[first_image(dataset)]


def wrong_size(dataset: PatchSet) -> None:
    dataset.files[first_image(dataset)] = plain_tiff(np.zeros((95, 96, 3), np.uint8))


def grey(dataset: PatchSet) -> None:
    dataset.files[first_image(dataset)] = encoded(dataset.patches[0][..., 0], "png")


def cut_image(dataset: PatchSet) -> None:
    dataset.files[first_image(dataset)] = dataset.files[first_image(dataset)][:20_000]


def cut_png(dataset: PatchSet) -> None:
    del dataset.files[first_image(dataset)]
    dataset.files[f"train/{dataset.ids[0]}.png"] = encoded(dataset.patches[0], "png")[:9000]


def points_outside(dataset: PatchSet) -> None:
    dataset.files["../../evil.tif"] = b"x"


def points_to_root(dataset: PatchSet) -> None:
    dataset.files["/etc/evil.tif"] = b"x"


def no_labels(dataset: PatchSet) -> None:
    del dataset.files["train_labels.csv"]


def other_columns(dataset: PatchSet) -> None:
    dataset.files["train_labels.csv"] = b"name,label\na,1\n"


def labels_no_text(dataset: PatchSet) -> None:
    dataset.files["train_labels.csv"] = b"\xff\xfa\0\x81"


def empty_labels(dataset: PatchSet) -> None:
    dataset.files = {"train_labels.csv": b"id,label\n"}


def empty(dataset: PatchSet) -> None:
    dataset.files.clear()


def one_class(dataset: PatchSet) -> None:
    dataset.files["train_labels.csv"] = dataset.files["train_labels.csv"].replace(b",1\n", b",0\n")


CASES: list[tuple[Callable[[PatchSet], None], str]] = [
    (label_of_nothing, "names 1 patches that are not in train/"),
    (image_without_label, r"train/ holds 1 images without a label \(first: stranger\)"),
    (third_label, "gives the label '2'"),
    (label_twice, "twice"),
    (two_images, "has two images"),
    (both_in_train_and_test, "is in train/ and in test/"),
    (wrong_size, "96x95 RGB, not 96x96 RGB"),
    (grey, "96x96 L, not 96x96 RGB"),
    (cut_image, "not a whole TIFF, PNG, JPEG, BMP or WebP"),
    (cut_png, "not a whole TIFF, PNG, JPEG, BMP or WebP"),
    (no_labels, "there is no train_labels.csv among its 12 files"),
    (other_columns, "has the columns name,label; expected id,label"),
    (labels_no_text, "train_labels.csv cannot be read"),
    (empty_labels, "holds no patches"),
    (empty, "is empty"),
    (one_class, "all 12 labelled patches have the label 0"),
]


def assert_refused(pack: Callable[..., object], path: Path, message: str, packs: Path) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        pack(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert without_locks(packs) == []


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "folder"])
@pytest.mark.parametrize(("damage", "message"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_set_is_refused_in_one_sentence(tmp_path, pack, damage, message, as_zip):
    dataset = make_patch_set(12)
    damage(dataset)
    path = dataset.zip(tmp_path / "a.zip") if as_zip else dataset.folder(tmp_path / "a")
    assert_refused(pack, path, message, tmp_path / "packs")


@pytest.mark.parametrize("damage", [points_outside, points_to_root])
def test_a_member_that_points_outside_is_refused(tmp_path, pack, damage):
    dataset = make_patch_set(12)
    damage(dataset)
    assert_refused(pack, dataset.zip(tmp_path / "a.zip"), "points outside the archive", tmp_path / "packs")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_twice_in_the_archive_is_refused(tmp_path, pack):
    dataset = make_patch_set(12)
    path = dataset.zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(first_image(dataset), dataset.files[first_image(dataset)])
    assert_refused(pack, path, "is twice in the archive", tmp_path / "packs")


def test_a_missing_file_is_named(tmp_path, pack):
    assert_refused(pack, tmp_path / "none.zip", "no such file or folder", tmp_path / "packs")


def test_a_file_that_is_no_zip_is_refused(tmp_path, pack):
    (tmp_path / "a.zip").write_bytes(b"<html>log in, please</html>" * 50)
    assert_refused(pack, tmp_path / "a.zip", "this is not a zip", tmp_path / "packs")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_zip_is_refused(tmp_path, pack, share):
    path = make_patch_set(12).zip(tmp_path / "a.zip")
    os.truncate(path, int(path.stat().st_size * share))
    assert_refused(pack, path, "truncated or damaged", tmp_path / "packs")


def test_a_flipped_bit_in_an_image_is_refused(tmp_path, pack):
    path = make_patch_set(12).zip(tmp_path / "a.zip", zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[100_000] ^= 1
    path.write_bytes(content)
    assert_refused(pack, path, "checksum in the archive is wrong", tmp_path / "packs")


def test_the_competition_is_downloaded_by_a_training_run_only():
    with pytest.raises(ConfigError, match=r"source\.kind is kaggle"):
        fetch(SourceConfig(kind="kaggle"), 2)


def test_a_source_without_its_path_is_refused():
    with pytest.raises(ConfigError, match=r"source\.path is empty"):
        fetch(SourceConfig(kind="path"), 2)


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
