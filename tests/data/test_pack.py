"""A pack holds exactly the source's patches, whole, or is not there."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from patch_sets import without_locks

from pcam_model.core.errors import SourceError
from pcam_model.data.kaggle_layout import KagglePatches
from pcam_model.data.pack import load_patches, load_table, open_pack


@pytest.mark.parametrize("suffix", ["tif", "tiff", "png", "jpg"])
@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pack_holds_the_patches_of_the_source(tmp_path, patch_set, pack, suffix, as_zip):
    made = patch_set(9, suffix=suffix, test=3)
    made_pack = pack(made.zip(tmp_path / "a.zip") if as_zip else made.folder(tmp_path / "a"))
    rows = load_table(made_pack)
    assert (made_pack.count, made_pack.labelled, len(rows)) == (12, 9, 12)
    at = [made.ids.index(i) for i in rows["id"]]
    difference = np.abs(load_patches(made_pack).astype(int) - made.patches[at])
    assert difference.mean() < (40 if suffix == "jpg" else 1e-9)
    assert rows["label"].tolist()[:9] == made.labels[at][:9].tolist()
    assert rows["label"].isna().sum() == 3
    assert rows["origin"].tolist() == ["train"] * 9 + ["test"] * 3
    assert rows["slide"].isna().all()


def test_mean_and_std_are_those_of_the_pixels(kaggle_zip, pack):
    made = pack(kaggle_zip)
    pixels = load_patches(made).reshape(-1, 3) / 255
    np.testing.assert_allclose(made.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(made.std, pixels.std(0), rtol=1e-9)


def test_a_set_below_one_top_folder_is_found(tmp_path, patch_set, pack):
    assert pack(patch_set(8, top="pcam/").zip(tmp_path / "a.zip")).count == 8


def test_the_patches_are_the_same_from_a_zip_and_from_its_folder(tmp_path, patch_set, pack):
    made = patch_set(8, test=2)
    of_zip, of_folder = pack(made.zip(tmp_path / "a.zip", zipfile.ZIP_STORED)), pack(made.folder(tmp_path / "a"))
    pixels = [load_table(one).sort_values("id", ignore_index=True) for one in (of_zip, of_folder)]
    assert pixels[0].equals(pixels[1])


def test_packing_again_returns_what_is_there(kaggle_zip, pack):
    first = pack(kaggle_zip)
    before = (Path(first.folder) / "patches.npy").stat().st_mtime_ns
    assert pack(kaggle_zip) == first
    assert (Path(first.folder) / "patches.npy").stat().st_mtime_ns == before


def test_a_damaged_pack_does_not_open_and_is_made_anew(kaggle_zip, pack):
    first = pack(kaggle_zip)
    with (Path(first.folder) / "patches.npy").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(SourceError, match="delete the folder and pack again"):
        open_pack(Path(first.folder))
    assert pack(kaggle_zip) == first
    assert load_patches(first).shape == (24, 96, 96, 3)


def test_what_a_killed_packing_left_is_cleared_away(tmp_path, kaggle_zip, pack):
    first = pack(kaggle_zip)
    folder = Path(first.folder)
    part = folder.with_name(f".{folder.name}.part")
    folder.rename(part)
    (part / "pack.json").unlink()
    assert pack(kaggle_zip) == first
    assert without_locks(tmp_path / "packs") == [folder.name]


def test_a_limit_takes_a_seeded_subset_in_proportion(tmp_path, patch_set, pack):
    archive = patch_set(40, test=5).zip(tmp_path / "a.zip")
    ids = [load_table(pack(archive, max_patches=10, seed=seed))["id"].tolist() for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]
    rows = load_table(pack(archive, max_patches=10, seed=1))
    assert rows["label"].value_counts().to_dict() == {0: 5, 1: 5}


def test_a_slide_map_names_the_slides(tmp_path, patch_set, pack):
    made = patch_set(6)
    (tmp_path / "map.csv").write_text("id,wsi\n" + "".join(f"{i},s{n % 2}\n" for n, i in enumerate(made.ids[:5])))
    rows = load_table(pack(made.zip(tmp_path / "a.zip"), slides=str(tmp_path / "map.csv")))
    assert rows["slide"].tolist() == ["s0", "s1", "s0", "s1", "s0", None]


def test_quarantine_sets_bad_patches_aside_and_lists_them(tmp_path, patch_set, pack):
    made = patch_set(20)
    bad = made.ids[3]
    made.files[f"train/{bad}.tif"] = b"no image"
    found = pack(made.zip(tmp_path / "a.zip"), on_bad_patch="quarantine", max_bad_fraction=0.1)
    assert found.count == 19
    assert bad not in set(load_table(found)["id"])
    assert load_patches(found).shape[0] == 19
    assert bad in (Path(found.folder) / "pack.json").read_text()


def test_too_much_quarantine_stops_the_packing(tmp_path, patch_set, pack):
    made = patch_set(20)
    for name in made.ids[:5]:
        made.files[f"train/{name}.tif"] = b"no image"
    with pytest.raises(SourceError, match=r"more than 10\.00% of the 20 patches are bad"):
        pack(made.zip(tmp_path / "a.zip"), on_bad_patch="quarantine", max_bad_fraction=0.1)


def test_unlabelled_patches_stand_as_the_sample_submission_asks(tmp_path, patch_set):
    made = patch_set(6, test=4)
    submitted = made.ids[:5:-1]
    made.files["sample_submission.csv"] = "\n".join(["id,label", *(f"{each},0" for each in submitted)]).encode()
    assert KagglePatches(made.zip(tmp_path / "a.zip")).table["id"].tolist() == made.ids[:6] + submitted
    made.files["sample_submission.csv"] += b"\nmissing,0"
    with pytest.raises(SourceError, match=r"names 1 patches that are not in test/ \(first: missing\)"):
        KagglePatches(made.zip(tmp_path / "b.zip"))
