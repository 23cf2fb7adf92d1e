"""Patch sets as other people have them are packed and predicted alike, or refused with what to do."""

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from official_files import official_folder
from other_layouts import class_folders, inner_zip, write_hdf5, write_parquet
from patch_sets import encoded, make_patch_set, some_patches

from pcam_model.core.errors import SourceError
from pcam_model.data import zip_archive
from pcam_model.data.file_names import class_of, is_system_file, split_of, suffix_of
from pcam_model.data.hdf5_names import PREFIX
from pcam_model.data.image_inputs import Images
from pcam_model.data.layouts import open_patches
from pcam_model.data.pack import Pack, load_patches, load_table

MakePack = Callable[..., Pack]


def labels_of(pack: Pack) -> dict[str, int]:
    table = load_table(pack)
    return dict(zip(table["id"], table["label"], strict=True))


def assert_same_patches(pack: Pack, images: Images) -> None:
    """Packed and predicted patches of the same id have the same pixels."""
    table, pixels = load_table(pack), load_patches(pack)
    by_id = {images.name(row).id: images.patch(row) for row in range(len(images))}
    assert set(table["id"]) == set(by_id)
    assert all(np.array_equal(by_id[name], pixels[row]) for row, name in enumerate(table["id"]))


CLASS_NAMES: list[tuple[tuple[str, str], dict[str, Any]]] = [
    (("normal", "tumor"), {}),
    (("0", "1"), {}),
    (("Benign", "Malignant"), {}),
    (("a_no_tumor_tissue", "b_has_tumor_tissue"), {}),
    (("non-cancerous", "cancerous"), {}),
    (("B", "M"), {"classes": ["b", "m"]}),
]


@pytest.mark.parametrize(("names", "keys"), CLASS_NAMES, ids=lambda value: "-".join(value))
@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "folder"])
def test_class_folders_give_the_labels(
    tmp_path: Path, pack: MakePack, names: tuple[str, str], keys: dict[str, Any], as_zip: bool
) -> None:
    dataset = class_folders(names, top="set/")
    built = pack(dataset.zip(tmp_path / "a.zip") if as_zip else dataset.folder(tmp_path / "a"), **keys)
    assert labels_of(built) == dict(zip(dataset.ids, dataset.labels, strict=True))
    assert_same_patches(built, Images([tmp_path / ("a.zip" if as_zip else "a")]))


def test_folders_of_splits_above_class_folders_give_the_splits(tmp_path: Path, pack: MakePack) -> None:
    for seed, split in enumerate(("train_dir", "val_dir", "test_dir")):
        class_folders(top=f"{split}/", seed=seed).folder(tmp_path / "a")
    rows = load_table(pack(tmp_path / "a"))
    assert rows.groupby("origin")["label"].count().to_dict() == {"train": 8, "valid": 8, "test": 8}


def test_images_of_the_same_name_in_two_classes_keep_their_folder_in_the_id(tmp_path: Path, pack: MakePack) -> None:
    built = pack(class_folders(numbered=True).folder(tmp_path / "a"))
    assert sorted(labels_of(built)) == [f"{name}/{i}" for name in ("normal", "tumor") for i in range(4)]


def test_an_unlabelled_test_folder_beside_class_folders_is_unlabelled(tmp_path: Path, pack: MakePack) -> None:
    folder = class_folders(top="train/").folder(tmp_path / "a")
    (folder / "test").mkdir()
    (folder / "test" / "x.png").write_bytes(encoded(some_patches(1)[0][0], "png"))
    built = pack(folder)
    assert (built.count, built.labelled) == (9, 8)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (0, ["0_normal", "no tumour", "NORMAL", "class 0"]),
        (1, ["metastases", "TUMOR", "class_1", "1"]),
        (None, ["tumor_001", "normal_014", "0.5", "1_normal", "train", "", "2"]),
    ],
)
def test_a_name_is_a_class_where_that_is_plain(label: int | None, names: list[str]) -> None:
    assert {class_of(name) for name in names} == {label}


def test_what_is_system_file_and_which_split_a_name_tells() -> None:
    left_by_systems = [
        "train/.ipynb_checkpoints/x-checkpoint.tif",
        "@eaDir/x.tif/SYNO.jpg",
        "__MACOSX/train/._x.tif",
        "Thumbs.db",
    ]
    assert all(map(is_system_file, [*left_by_systems, "train/._x.tif", ".DS_Store", "a/#recycle/x.png"]))
    assert not any(map(is_system_file, ["train/x.tif", "eaDir/x.tif", "train/x.ipynb"]))
    names = ["validation_split", "camelyonpatch_level_2_split_test_x", "train/latest", "contest/x"]
    assert [split_of(name) for name in names] == ["valid", "test", "train", None]


@given(st.text("aB./", min_size=1).filter(lambda name: PurePosixPath(name).name == name.rpartition("/")[2]))
def test_the_ending_of_a_name_is_that_of_its_path(name: str) -> None:
    assert suffix_of(name) == PurePosixPath(name).suffix.lower().removeprefix(".")


def test_the_directory_of_an_archive_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = make_patch_set(6).zip(tmp_path / "a.zip"), list[Path]()
    read_directory = zip_archive.read_directory

    def counted(path: Path, part: zip_archive.FilePart) -> dict[str, zip_archive.ZipMember]:
        opened.append(path)
        return read_directory(path, part)

    monkeypatch.setattr(zip_archive, "read_directory", counted)
    open_patches(path, tmp_path).close()
    Images([path])
    assert opened == [path, path]


LITTER = [
    ".ipynb_checkpoints/x-checkpoint.tif",
    "@eaDir/x.tif",
    "__MACOSX/._x.tif",
    ".DS_Store",
    "Thumbs.db",
    "._x.tif",
]


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "folder"])
def test_system_files_are_left_out_of_training_and_of_prediction(tmp_path: Path, pack: MakePack, as_zip: bool) -> None:
    dataset = make_patch_set(6)
    image = next(iter(dataset.files.values()))
    clean = dataset.folder(tmp_path / "clean")
    dataset.files |= {f"{folder}{name}": image for name in LITTER for folder in ("", "train/")}
    path = dataset.zip(tmp_path / "a.zip") if as_zip else dataset.folder(tmp_path / "a")
    images = Images([path])
    assert (pack(path).count, len(images), images.ignored_files) == (6, 6, [])
    if not as_zip:
        assert pack(path).archive == pack(clean).archive  # what a desktop adds changes no digest


def test_backslashes_in_members_and_in_names_of_files_divide_folders(tmp_path: Path, pack: MakePack) -> None:
    dataset = make_patch_set(6, top="set/")
    dataset.files = {name.replace("/", "\\"): content for name, content in dataset.files.items()}
    for path in (dataset.zip(tmp_path / "a.zip"), dataset.folder(tmp_path / "a")):
        built, images = pack(path), Images([path])
        assert sorted(labels_of(built)) == sorted(dataset.ids)
        assert_same_patches(built, images)
        assert images.name(0).file.startswith("set/train/")


def tar(path: Path, dataset: Any, mode: str = "w") -> Path:
    dataset.folder(path.parent / "unpacked")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(path.parent / "unpacked", "./")
    return path


def test_a_tar_is_read_in_place(tmp_path: Path, pack: MakePack) -> None:
    path = tar(tmp_path / "a.tar", make_patch_set(6, suffix="png"))
    built = pack(path)
    assert labels_of(built) == labels_of(pack(make_patch_set(6, suffix="png").zip(tmp_path / "a.zip")))
    assert_same_patches(built, Images([path]))


@pytest.mark.parametrize("end", [0.3, 0.7])
def test_a_truncated_tar_is_refused(tmp_path: Path, pack: MakePack, end: float) -> None:
    path = tar(tmp_path / "a.tar", make_patch_set(6))
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * end))
    with pytest.raises(SourceError, match="this tar is truncated or damaged"):
        pack(path)


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path, pack: MakePack) -> None:
    path = tar(tmp_path / "a.tar", make_patch_set(6))
    with tarfile.open(path) as archive:
        end = archive.getmembers()[-1].offset
    with path.open("r+b") as file:
        file.truncate(end)
    with pytest.raises(SourceError, match="this tar is truncated or damaged"):
        pack(path)


def test_a_link_in_a_tar_is_refused(tmp_path: Path, pack: MakePack) -> None:
    dataset = make_patch_set(6)
    dataset.folder(tmp_path / "unpacked")
    (tmp_path / "unpacked" / "train" / "x.tif").symlink_to("/etc/passwd")
    with pytest.raises(SourceError, match="is no plain file but a link"):
        pack(tar(tmp_path / "a.tar", dataset))


COMPRESSED = {"gz": "gzip archive", "bz2": "bzip2 archive", "xz": "xz archive"}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_tar_is_refused_with_the_command_that_unpacks_it(
    tmp_path: Path, pack: MakePack, kind: str
) -> None:
    path = tar(tmp_path / f"a.tar.{kind}", make_patch_set(6), f"w:{kind}")
    for read in (pack, lambda path: Images([path])):
        with pytest.raises(SourceError, match=rf"{COMPRESSED[kind]}.*tar xf a\.tar\.{kind} -C FOLDER"):
            read(path)
    with tarfile.open(path) as archive:  # as the message says
        archive.extractall(tmp_path / "FOLDER", filter="data")
    assert pack(tmp_path / "FOLDER").count == 6


def test_archives_of_other_kinds_and_what_servers_send_instead_are_named(tmp_path: Path, pack: MakePack) -> None:
    cases = {
        "a.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "this is a 7z archive.*7z x a.7z -oFOLDER"),
        "a.rar": (b"Rar!\x1a\x07\0" + bytes(99), "this is a rar archive.*unrar x a.rar"),
        "page.zip": (b"<!DOCTYPE html><html>log in</html>", "this is not a zip: it is a web page"),
        "lfs.zip": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS.*git lfs pull"),
        "lfs.parquet": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS"),
        "quota_x.h5": (b"<html>quota exceeded</html>", "it is a web page"),
        "half.parquet": (b"PAR1" + bytes(99), "it is no whole parquet file"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=message) as caught:
            Images([tmp_path / name])
        assert "\n" not in str(caught.value)


def test_the_images_and_the_table_may_lie_in_zips_of_their_own(tmp_path: Path, pack: MakePack) -> None:
    dataset = make_patch_set(6, test=2)
    zips = {
        "train.zip": inner_zip({name[6:]: data for name, data in dataset.files.items() if name.startswith("train/")}),
        "test.zip": inner_zip({name: data for name, data in dataset.files.items() if name.startswith("test/")}),
        "train_labels.csv.zip": inner_zip(
            {"train_labels.csv": dataset.files["train_labels.csv"]}, zipfile.ZIP_DEFLATED
        ),
    }
    expected = pack(dataset.zip(tmp_path / "plain.zip"))
    for top in ("", "histopathologic-cancer-detection/"):
        dataset.files = {top + name: content for name, content in zips.items()}
        for path in (dataset.folder(tmp_path / f"a{len(top)}"), dataset.zip(tmp_path / f"{len(top)}.zip", 0)):
            built, images = pack(path), Images([path])
            assert labels_of(built).keys() == labels_of(expected).keys()
            assert_same_patches(built, images)
            assert images.ignored_files == []


def test_a_large_zip_that_is_compressed_again_has_to_be_unpacked_once(
    tmp_path: Path, pack: MakePack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcam_model.data.open_container.MAX_TABLE_BYTES", 1000)
    dataset = make_patch_set(6)
    labels = dataset.files.pop("train_labels.csv")
    dataset.files = {"train.zip": inner_zip(dataset.files), "train_labels.csv": labels}
    path = dataset.zip(tmp_path / "a.zip")
    with pytest.raises(SourceError, match=r"train\.zip in it cannot be read in place.*unpack a\.zip into a folder"):
        pack(path)
    with zipfile.ZipFile(path) as archive:  # as the message says
        archive.extractall(tmp_path / "FOLDER")
    assert pack(tmp_path / "FOLDER").count == 6


def test_a_zip_beside_what_was_unpacked_of_it_is_not_read_twice(
    tmp_path: Path, pack: MakePack, messages: pytest.LogCaptureFixture
) -> None:
    dataset = make_patch_set(6)
    images = {name[6:]: data for name, data in dataset.files.items() if name.startswith("train/")}
    dataset.files |= {"train.zip": inner_zip(images), "description.md": b"x"}
    dataset.files |= {"train_labels.csv.zip": inner_zip({"train_labels.csv": dataset.files["train_labels.csv"]})}
    path = dataset.folder(tmp_path / "a")
    assert (pack(path).count, len(Images([path]))) == (6, 6)
    assert "train.zip, train_labels.csv.zip is not read, since it lies there unpacked too" in messages.text


def test_a_broken_zip_in_a_folder_is_named(tmp_path: Path, pack: MakePack) -> None:
    folder = make_patch_set(6).folder(tmp_path / "a")
    (folder / "test.zip").write_bytes(inner_zip({"x.png": bytes(500)})[:300])
    with pytest.raises(SourceError, match=r"a/test\.zip: .* truncated or damaged"):
        pack(folder)


@pytest.mark.parametrize("top", ["train/train/", ""])
def test_images_deeper_or_beside_the_table_are_found_by_their_ids(tmp_path: Path, pack: MakePack, top: str) -> None:
    dataset = make_patch_set(6)
    dataset.files = {name.replace("train/", top): content for name, content in dataset.files.items()}
    assert pack(dataset.folder(tmp_path / "a")).count == 6


@pytest.mark.parametrize("truth_values", [True, False])
def test_parquet_shards_give_labels_and_splits(tmp_path: Path, pack: MakePack, truth_values: bool) -> None:
    counts = {"train-00000-of-00002": 12, "train-00001-of-00002": 7, "valid-00000-of-00001": 6}
    for seed, (name, count) in enumerate(counts.items()):
        write_parquet(tmp_path / "hf" / "data" / f"{name}.parquet", count, seed, truth_values=truth_values)
    (tmp_path / "hf" / "README.md").write_text("card")
    built = pack(tmp_path / "hf")
    rows, pixels = load_table(built), load_patches(built)
    assert rows.groupby("origin")["label"].count().to_dict() == {"train": 19, "valid": 6}
    for seed, (name, count) in enumerate(counts.items()):
        of_shard = rows[rows["id"].str.startswith(name)]
        patches, labels = some_patches(count, seed)
        assert np.array_equal(pixels[of_shard.index], patches)
        assert of_shard["label"].tolist() == labels.tolist()
    images = Images([tmp_path / "hf"])
    assert_same_patches(built, images)
    assert images.name(13).file == "data/train-00001-of-00002.parquet"
    assert len(Images([tmp_path / "hf" / "data" / "valid-00000-of-00001.parquet"])) == 6


def test_parquet_rows_are_read_in_any_order(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 20, 0, paths=True, group_rows=6)
    images = Images([tmp_path / "a.parquet"])
    assert images.name(3).id == "s0_3"
    patches, _ = some_patches(20, 0)
    for row in [19, 0, 7, 3, 18, 5, 5, 12]:
        assert np.array_equal(images.patch(row), patches[row])


def test_parquet_without_images_or_with_other_labels_is_refused(tmp_path: Path, pack: MakePack) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="its columns are text, label; expected one of image files"):
        pack(tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [b"a"], "label": [2]}), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"the label of row 0 is 2 \(1 such rows\)"):
        pack(tmp_path / "b.parquet")
    pq.write_table(pa.table({"image": [b"a"]}), tmp_path / "c.parquet")
    with pytest.raises(SourceError, match="expected one named label"):
        pack(tmp_path / "c.parquet")


def test_torchvisions_folder_and_a_mirrors_folders_of_hdf5_are_found(tmp_path: Path, pack: MakePack) -> None:
    official_folder(tmp_path / "pcam", packed=False)
    (tmp_path / "root").mkdir()
    (tmp_path / "pcam").rename(tmp_path / "root" / "pcam")
    built = pack(tmp_path / "root", verify_md5=False)
    assert load_table(built).groupby("origin")["label"].count().to_dict() == {"train": 12, "valid": 6, "test": 4}
    assert load_table(built)["slide"].notna().all()
    assert_same_patches(built, Images([tmp_path / "root"]))
    mirror, official = tmp_path / "mirror", tmp_path / "root" / "pcam"
    for name, split in (("training", "train"), ("validation", "valid"), ("test", "test")):
        for source, target in (
            (f"{split}_x.h5", mirror / "pcam" / f"{name}_split.h5"),
            (f"{split}_y.h5", mirror / "Labels" / "Labels" / f"{PREFIX}_{split}_y.h5"),
            (f"{split}_meta.csv", mirror / "Metadata" / "Metadata" / f"{PREFIX}_{split}_meta.csv"),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((official / f"{PREFIX}_{source}").read_bytes())
    again = pack(mirror, verify_md5=False)
    columns = ["label", "slide", "origin", "pixels"]
    assert load_table(again)[columns].equals(load_table(built)[columns])
    assert_same_patches(again, Images([mirror]))


def test_one_hdf5_file_is_trained_on_with_its_labels(tmp_path: Path, pack: MakePack) -> None:
    both = write_hdf5(tmp_path / "own.hdf5")
    assert_same_patches(pack(both), Images([both]))
    images = write_hdf5(tmp_path / "ward_x.h5", datasets="x")
    with pytest.raises(SourceError, match=r"its labels \(ward_y\.h5\[\.gz\]\) are not; images and labels belong"):
        pack(images)
    write_hdf5(tmp_path / "ward_y.h5", datasets="y")  # as the message says
    assert pack(images).count == 4
    alone = write_hdf5(tmp_path / "alone" / "patches.hdf5", datasets="x")
    with pytest.raises(SourceError, match=r"or give one that holds both x and y"):
        pack(alone)
    assert len(Images([alone])) == 4
    with pytest.raises(SourceError, match="hold neither x"):
        pack(write_hdf5(tmp_path / "empty" / "a.h5", datasets=""))


def test_two_files_of_one_split_are_refused(tmp_path: Path, pack: MakePack) -> None:
    for folder in ("a", "b"):
        write_hdf5(tmp_path / "h" / folder / "train.h5")
    with pytest.raises(SourceError, match="are of the same split"):
        pack(tmp_path / "h")
    assert pack(tmp_path / "h" / "a").count == 4


def test_names_with_the_query_of_a_download_are_understood(tmp_path: Path, pack: MakePack) -> None:
    folder = official_folder(tmp_path / "pcam")
    expected = pack(folder, verify_md5=False)
    for path in folder.glob("*.gz"):
        path.rename(f"{path}?download=1")
    built = pack(folder, verify_md5=False)
    assert built.digest == expected.digest
    assert_same_patches(built, Images([folder], tmp_path / "scratch"))
    with pytest.raises(SourceError, match="1571f514728f59376b705fc836ff4b63 was published"):
        pack(folder)


def test_other_image_files_are_read_or_listed_as_unreadable(tmp_path: Path, pack: MakePack) -> None:
    from PIL import Image

    patch = some_patches(1)[0][0]
    for suffix, options in (("bmp", {}), ("webp", {"lossless": True}), ("jfif", {"format": "JPEG"}), ("gif", {})):
        Image.fromarray(patch).save(tmp_path / f"x.{suffix}", **options)
    images = Images([tmp_path])
    assert [images.name(row).file for row in range(len(images))] == ["x.bmp", "x.gif", "x.jfif", "x.webp"]
    assert images.ignored_files == []
    assert np.array_equal(images.patch(0), patch)
    assert np.array_equal(images.patch(3), patch)
    with pytest.raises(Exception, match="not a whole TIFF, PNG, JPEG, BMP or WebP"):
        images.patch(1)
