"""PCam's official files bring labels, slides and splits; other files are refused."""

import gzip

import numpy as np
import pytest
from official_files import COUNTS, official_folder
from patch_sets import some_patches, without_locks

from pcam_model.core.errors import SourceError
from pcam_model.data.official_files import PREFIX
from pcam_model.data.pack import load_patches, load_table
from pcam_model.data.split import SplitConfig, make_split


@pytest.fixture
def official(tmp_path):
    """official(packed=True, chunks=None) -> a folder in PCam's official layout."""
    return lambda *args, **kwargs: official_folder(tmp_path / "official", *args, **kwargs)


@pytest.mark.parametrize(("packed", "chunks"), [(True, None), (False, None), (True, (3, 96, 96, 3))])
def test_official_files_bring_labels_slides_and_splits(tmp_path, official, pack, packed, chunks):
    built = pack(official(packed, chunks), verify_md5=False)
    rows = load_table(built)
    for seed, (split_name, count) in enumerate(COUNTS.items()):
        of_split = rows[rows["origin"] == split_name]
        pixels, labels = some_patches(count, seed)
        assert np.array_equal(load_patches(built)[of_split.index], pixels)
        assert of_split["label"].tolist() == labels.tolist()
        assert of_split["slide"].tolist() == [f"{split_name}_{i % 3}" for i in range(count)]
    split = make_split(built, SplitConfig(), tmp_path / "split")
    assert split.kind == "official"
    assert split.meaning.endswith("no slide and no identical patch is in two splits")
    assert sorted(path.name for path in (tmp_path / "packs").glob("*/*")) == [
        "pack.json",
        "patches.npy",
        "patches.parquet",
    ]


def test_without_meta_the_slides_are_not_known(official, pack):
    assert load_table(pack(official(meta=False), verify_md5=False))["slide"].isna().all()


def test_files_that_are_not_the_published_ones_are_refused(tmp_path, official, pack):
    with pytest.raises(SourceError, match="1571f514728f59376b705fc836ff4b63 was published"):
        pack(official())
    assert without_locks(tmp_path / "packs") == []


def spoil_x(folder):
    path = folder / f"{PREFIX}_valid_x.h5.gz"
    path.write_bytes(path.read_bytes()[:-5000])


def spoil_y(folder):
    (folder / f"{PREFIX}_train_y.h5.gz").write_bytes(gzip.compress(b"no HDF5"))


def lose_y(folder):
    (folder / f"{PREFIX}_test_y.h5.gz").unlink()


def exchange_meta(folder):
    (folder / f"{PREFIX}_train_meta.csv").write_bytes((folder / f"{PREFIX}_valid_meta.csv").read_bytes())


def exchange_x(folder):
    (folder / f"{PREFIX}_train_x.h5.gz").write_bytes((folder / f"{PREFIX}_valid_x.h5.gz").read_bytes())


def bomb(folder):
    (folder / f"{PREFIX}_train_y.h5.gz").write_bytes(gzip.compress(bytes(1 << 27), 1))


DAMAGED = [
    (spoil_x, "no whole gzip file"),
    (spoil_y, "no whole HDF5 file"),
    (lose_y, "images and labels belong together"),
    (exchange_meta, "do not have the labels of the split"),
    (exchange_x, "x holds 6 patches, and its labels are 12"),
    (bomb, "unpacks to more than"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGED)
def test_broken_official_files_are_refused_in_one_sentence(tmp_path, official, pack, damage, message):
    folder = official()
    damage(folder)
    with pytest.raises(SourceError, match=message) as caught:
        pack(folder, verify_md5=False)
    assert "\n" not in str(caught.value)
    assert without_locks(tmp_path / "packs") == []
