"""Splits share no pixels and, by slide, no slides; the same patches get the same splits in any order."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from pcam_model.core.errors import ConfigError, SplitError
from pcam_model.data.pack import Pack, load_table
from pcam_model.data.split import SplitConfig, make_split, split_rows


@pytest.fixture
def make_pack(tmp_path):
    """make_pack(labels, slides=None, pixels=None, origin="train") -> a pack of a table without patches."""

    def make(labels, slides=None, pixels=None, origin="train", order=None) -> Pack:
        count = len(labels)
        rows = pd.DataFrame(
            {
                "id": [f"p{i:05d}" for i in range(count)],
                "label": pd.array(labels, dtype="Int8"),
                "slide": np.array(slides, object) if slides is not None else np.full(count, None, object),
                "pixels": [f"{p}" for p in (pixels if pixels is not None else range(count))],
                "origin": origin,
                "pixel_std": 0.2,
            }
        )
        rows = rows.iloc[order] if order is not None else rows
        folder = tmp_path / f"pack{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        rows.reset_index(drop=True).to_parquet(folder / "patches.parquet", index=False)
        zero = (0.0, 0.0, 0.0)
        return Pack(folder=str(folder), digest="d", count=count, labelled=count, mean=zero, std=zero, source="test")

    return make


def split_of(pack: Pack, split) -> pd.Series:
    rows = load_table(pack)
    names = pd.Series("", index=rows["id"])
    for split_name, pack_rows in split_rows(split).items():
        names.iloc[pack_rows] = split_name
    return names.sort_index()


def test_a_random_split_keeps_the_classes_in_proportion(make_pack, tmp_path):
    pack = make_pack([0] * 600 + [1] * 400)
    split = make_split(pack, SplitConfig(kind="random", valid=0.2, test=0.1), tmp_path / "s")
    assert split.counts == {"train": {"0": 420, "1": 280}, "valid": {"0": 120, "1": 80}, "test": {"0": 60, "1": 40}}
    assert split.meaning.startswith("optimistic")


@pytest.mark.parametrize("kind", ["random", "slide"])
def test_identical_pixels_are_in_one_split(make_pack, tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 300, 900)
    pack = make_pack(np.arange(900) % 2, slides=[f"s{i % 60}" for i in range(900)], pixels=pixels)
    if kind == "slide":
        pixels = np.arange(900) % 60 // 2
        pack = make_pack(np.arange(900) // 3 % 2, slides=[f"s{i % 60}" for i in range(900)], pixels=pixels)
    split = make_split(pack, SplitConfig(kind=kind), tmp_path / "s")
    names = split_of(pack, split)
    assert pd.Series(names.to_numpy()).groupby(pixels).nunique().max() == 1
    assert 0.1 < (names == "valid").mean() < 0.35


@pytest.mark.parametrize("kind", ["random", "slide"])
def test_the_order_of_the_rows_does_not_matter_and_the_seed_does(make_pack, tmp_path, kind):
    labels, slides = np.arange(1500) % 3 == 0, [f"s{i % 40}" for i in range(1500)]
    plain = make_pack(labels, slides)
    mixed = make_pack(labels, slides, order=np.random.default_rng(1).permutation(1500))
    splits = [make_split(p, SplitConfig(kind=kind), tmp_path / f"s{i}") for i, p in enumerate((plain, mixed))]
    assert splits[0].digest == splits[1].digest
    assert split_of(plain, splits[0]).equals(split_of(mixed, splits[1]))
    assert make_split(plain, SplitConfig(kind=kind, seed=3), tmp_path / "s2").digest != splits[0].digest


def test_no_slide_is_in_two_splits(make_pack, tmp_path):
    slides = [f"s{i % 37}" for i in range(2000)]
    pack = make_pack(np.random.default_rng(0).random(2000) < 0.4, slides)
    split = make_split(pack, SplitConfig(valid=0.3, test=0.1), tmp_path / "s")
    assert split.kind == "slide"
    assert "slides that were not trained on" in split.meaning
    assert pd.Series(split_of(pack, split).to_numpy()).groupby(slides).nunique().max() == 1
    leakage = json.loads((tmp_path / "s" / "split.json").read_text())["leakage"]
    assert leakage["slides_in_two_splits"] == leakage["pixels_in_two_splits"] == 0
    assert sum(map(len, leakage["slides"].values())) == 37


def test_auto_takes_the_sources_own_splits_where_there_are_any(make_pack, tmp_path):
    origin = ["train"] * 60 + ["valid"] * 20 + ["test"] * 20
    pack = make_pack(np.arange(100) % 2, origin=origin)
    split = make_split(pack, SplitConfig(), tmp_path / "s")
    assert split.kind == "official"
    assert {k: len(v) for k, v in split_rows(split).items()} == {
        "train": 60,
        "valid": 20,
        "test": 20,
    }
    assert make_split(make_pack(np.arange(100) % 2), SplitConfig(), tmp_path / "t").kind == "random"


def test_an_official_split_leaves_repeats_out(make_pack, tmp_path):
    origin = ["train"] * 60 + ["valid"] * 20 + ["test"] * 20
    pack = make_pack(np.arange(100) % 2, origin=origin, pixels=[99, 60, *range(2, 100)])
    split = make_split(pack, SplitConfig(), tmp_path / "s")
    assert "2 patches that repeat one of a later split were left out" in split.meaning
    assert split_rows(split)["train"].tolist() == list(range(2, 60))


def test_unlabelled_patches_are_in_no_split(make_pack, tmp_path):
    pack = make_pack([0, 1] * 20 + [None] * 10, origin=["train"] * 40 + ["test"] * 10)
    split = make_split(pack, SplitConfig(), tmp_path / "s")
    assert sum(map(len, split_rows(split).values())) == 40


def test_patches_without_a_slide_are_refused_or_each_a_slide(make_pack, tmp_path):
    slides = [None, None] + [f"s{i % 20}" for i in range(198)]
    pack = make_pack(np.arange(200) % 2, slides)
    with pytest.raises(SplitError, match="does not name 2 of 200 patches"):
        make_split(pack, SplitConfig(kind="slide"), tmp_path / "s")
    split = make_split(pack, SplitConfig(kind="slide", unmapped_slides="alone"), tmp_path / "s")
    assert sum(map(len, split_rows(split).values())) == 200
    assert "optimistic where 2 patches of unknown slides" in split.meaning


def test_folds_divide_the_patches(make_pack, tmp_path):
    pack = make_pack(np.arange(300) % 2, [f"s{i % 30}" for i in range(300)])
    configs = [SplitConfig(kind="slide", folds=3, fold=fold, test=0.1) for fold in range(3)]
    splits = [make_split(pack, config, tmp_path / f"s{config.fold}") for config in configs]
    valid = np.concatenate([split_rows(split)["valid"] for split in splits])
    assert len(valid) == len(set(valid)) == 270
    with pytest.raises(ValidationError, match=r"split\.fold 3; give two folds or more"):
        SplitConfig(kind="slide", folds=3, fold=3)


REFUSED = [
    ({"kind": "slide"}, {}, "slides of the patches are not known"),
    ({"kind": "official"}, {}, "train and valid are needed"),
    ({"kind": "slide"}, {"slides": ["one"] * 40}, "there are 1 slides"),
    ({"kind": "slide", "test": 0.2}, {"slides": ["a", "b"] * 20}, "there are 2 slides"),
    ({"kind": "slide"}, {"slides": ["a", "b"] * 20}, "every split needs both"),
    ({"kind": "slide"}, {"slides": ["a", "a", "b", "b"] * 10, "pixels": [0] * 40}, "1 more, which share an identical"),
    ({"kind": "random"}, {"pixels": [0] * 40}, "there are 1 groups"),
    ({"kind": "official"}, {"origin": ["train"] * 39 + ["valid"]}, "every split needs both"),
]


@pytest.mark.parametrize(("config", "rows", "message"), REFUSED)
def test_an_impossible_division_is_refused(make_pack, tmp_path, config, rows, message):
    with pytest.raises(SplitError, match=message):
        make_split(make_pack(np.arange(40) % 2, **rows), SplitConfig(**config), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_an_official_split_has_no_folds(make_pack, tmp_path):
    pack = make_pack(np.arange(100) % 2, origin=["train"] * 80 + ["valid"] * 20)
    with pytest.raises(ConfigError, match="an official split has none"):
        make_split(pack, SplitConfig(folds=3), tmp_path / "s")


def test_one_class_only_is_refused(make_pack, tmp_path):
    for labels in ([0] * 40, [1] * 40, [0] * 39 + [1]):
        with pytest.raises(SplitError, match="both"):
            make_split(make_pack(labels), SplitConfig(kind="random"), tmp_path / "s")


def test_a_config_that_leaves_nothing_for_training_is_refused():
    with pytest.raises(ValidationError, match="less than 1 must remain"):
        SplitConfig(kind="random", valid=0.5, test=0.5)


def test_a_split_that_is_not_there_is_named(make_pack, tmp_path):
    split = make_split(make_pack([0, 1] * 20), SplitConfig(), tmp_path / "s")
    (Path(split.path) / "split.parquet").unlink()
    with pytest.raises(SplitError, match="delete the folder and split again"):
        split_rows(split)


def test_a_split_of_other_patches_or_a_changed_one_is_refused(make_pack, tmp_path):
    pack = make_pack([0, 1] * 30)
    split = make_split(pack, SplitConfig(kind="random"), tmp_path / "split")
    pack_table = load_table(pack)
    assert sum(map(len, split_rows(split, pack_table).values())) == 60
    for other in (pack_table.iloc[::-1], pack_table.iloc[:40], pack_table.assign(id="x" + pack_table["id"])):
        with pytest.raises(SplitError, match="divides other patches than the pack's"):
            split_rows(split, other)
    file = tmp_path / "split" / "split.parquet"
    pd.read_parquet(file).replace({"split": {"train": "valid"}}).to_parquet(file, index=False)
    with pytest.raises(SplitError, match="another split or was changed"):
        split_rows(split, pack_table)
