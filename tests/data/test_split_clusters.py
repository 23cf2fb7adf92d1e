"""Where slides are not known, patches of like stain and of one piece of tissue are in one split."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from stained_patches import dye, stained, write_pack
from threadpoolctl import threadpool_limits

from pcam_model.core.errors import SplitError
from pcam_model.data.pack import load_table
from pcam_model.data.split import SplitConfig, make_split
from pcam_model.data.split_assignment import assign_splits
from pcam_model.data.stain_clusters import CANDIDATES, candidate_counts, cluster_patches, stain_hues
from pcam_model.data.tissue_pieces import tile_digests, tissue_pieces

DYES, COUNT = 24, 624


@pytest.fixture(scope="module")
def dyes():
    return np.random.default_rng(1).integers(0, DYES, COUNT)


@pytest.fixture(scope="module")
def patches(dyes):
    return stained(dyes)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(2).integers(0, 2, COUNT)


@pytest.fixture
def stained_pack(tmp_path, patches, labels):
    return write_pack(tmp_path / "pack", patches, labels)


def table_of(folder) -> pd.DataFrame:
    return pd.read_parquet(folder / "split.parquet").sort_values("id", ignore_index=True)


def test_dyes_are_told_apart_whatever_the_tissue(stained_pack, dyes):
    rows = load_table(stained_pack).rename_axis("row").reset_index()
    clusters, found = cluster_patches(stained_pack, rows, seed=2, smallest=0.2)
    assert (found.count, found.tissue_pieces) == (DYES, 0)
    assert found.silhouette > 0.8
    assert (pd.Series(dyes).groupby(clusters).nunique() == 1).all()


def test_the_hue_does_not_tell_how_much_is_stained():
    patches = np.stack([np.full((96, 96, 3), 255 * np.exp(-amount * dye(3))) for amount in (0.6, 1.8)]).astype(np.uint8)
    thin, thick = stain_hues(patches)
    assert np.abs(thin - thick).max() < 0.02
    assert np.abs(thin - stain_hues(stained([4]))[0]).max() > 0.1
    assert stain_hues(np.full((1, 96, 96, 3), 255, np.uint8))[0] == pytest.approx([1 / 3] * 3)


def test_no_cluster_is_in_two_splits_and_the_split_says_how_they_separate(stained_pack, tmp_path, dyes):
    split = make_split(stained_pack, SplitConfig(kind="cluster", test=0.2), tmp_path / "s")
    table = table_of(tmp_path / "s")
    assert table.groupby("cluster")["split"].nunique().max() == 1
    assert table["split"].groupby(dyes).nunique().max() == 1
    assert set(table["split"]) == {"train", "valid", "test"}
    assert split.meaning.startswith("optimistic where a slide has patches in several clusters")
    record = json.loads((tmp_path / "s" / "split.json").read_text())
    assert record["clusters"]["count"] == DYES
    silhouette = record["clusters"]["silhouette"]
    assert f"24 clusters of similar stain are in their place (silhouette {silhouette:.2f} of -1 to 1)" in split.meaning
    assert record["leakage"]["clusters_in_two_splits"] == 0


def test_neither_threads_nor_the_order_of_rows_matter_and_the_seed_does(tmp_path, patches, labels):
    digests = set()
    threads = torch.get_num_threads()
    for number, count in enumerate((1, 3)):
        order = np.random.default_rng(number).permutation(COUNT)
        pack = write_pack(tmp_path / f"pack{number}", patches, labels, order)
        try:
            torch.set_num_threads(count)
            with threadpool_limits(count):
                digests.add(make_split(pack, SplitConfig(kind="cluster"), tmp_path / f"s{number}").digest)
        finally:
            torch.set_num_threads(threads)
    assert len(digests) == 1
    assert make_split(pack, SplitConfig(kind="cluster", seed=5), tmp_path / "other").digest not in digests


def test_patches_that_overlap_are_in_one_piece_and_in_one_split(tmp_path, patches, labels, dyes):
    """Three windows, 32 pixels apart, of one wide strip whose ends have different dyes."""
    left, right = stained([0], seed=8, size=160)[0], stained([7], seed=9, size=160)[0]
    strip = np.where(np.arange(160)[None, :, None] < 64, left, right)
    windows = np.stack([strip[:96, start : start + 96] for start in (0, 32, 64)])
    joined = np.concatenate([patches, windows])
    pixels = np.arange(len(joined))
    pieces = tissue_pieces(tile_digests(joined), pixels)
    assert len(set(pieces[-3:])) == 1
    assert len(set(pieces)) == COUNT + 1
    pack = write_pack(tmp_path / "pack", joined, [*labels, 0, 1, 0])
    split = make_split(pack, SplitConfig(kind="cluster"), tmp_path / "s")
    assert table_of(tmp_path / "s")["split"].iloc[-3:].nunique() == 1
    assert "none of 1 pieces of tissue, which 3 overlapping patches show" in split.meaning


def test_neither_flat_tiles_nor_patterns_make_a_piece():
    random = np.random.default_rng(0)
    patches = random.integers(0, 255, (12, 96, 96, 3), dtype=np.uint8)
    patches[:, :32, :32] = 240  # glass
    patches[:, 64:, 64:] = patches[0, 64:, 64:]  # in more patches than a window can be moved to
    assert len(set(tissue_pieces(tile_digests(patches), np.arange(12)))) == 12
    repeated = tissue_pieces(tile_digests(patches[[0, 1, 0]]), np.array([0, 1, 0]))
    assert repeated[0] == repeated[2]


def test_the_number_of_clusters_follows_the_smallest_split():
    assert candidate_counts(100_000, 0.25) == list(CANDIDATES)
    assert candidate_counts(100_000, 0.1)[0] == 48
    assert candidate_counts(1250, 0.2) == [24, 32, 48]
    assert candidate_counts(100_000, 0.01) == [128]
    with pytest.raises(
        SplitError, match=r"599 patches are too few .* 20% of them in the smallest split, 600 are needed"
    ):
        candidate_counts(599, 0.2)


def test_auto_prefers_clusters_to_a_random_split(stained_pack, tmp_path):
    assert make_split(stained_pack, SplitConfig(), tmp_path / "s").kind == "cluster"
    assert make_split(stained_pack, SplitConfig(kind="random"), tmp_path / "t").kind == "random"


def test_auto_says_why_there_are_no_clusters_and_cluster_refuses(tmp_path, patches, labels, dyes, messages):
    few = write_pack(tmp_path / "few", patches[:100], labels[:100])
    three_hues = stained(range(3))[np.arange(COUNT) % 3]
    alike = write_pack(tmp_path / "alike", three_hues, labels)
    uneven = write_pack(tmp_path / "uneven", patches, dyes == 5)
    for pack, reason in (
        (few, "100 patches are too few for clusters"),
        (alike, "different hues, too few for 24 clusters"),
        (uneven, "0 of class 1|too uneven"),
    ):
        messages.clear()
        with pytest.raises(SplitError, match=reason):
            make_split(pack, SplitConfig(kind="cluster"), tmp_path / "refused")
        assert not (tmp_path / "refused").exists()
        split = make_split(pack, SplitConfig(), Path(pack.folder) / "split")
        assert split.kind == "random"
        assert re.search(reason, split.meaning)
        assert re.search(reason, messages.text)
        assert "divided at random and not by clusters" in messages.text


def test_identical_patches_of_two_clusters_are_in_one_split():
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"label": np.arange(400) % 2, "slide": None, "cluster": random.integers(0, 40, 400)})
    rows["pixels"] = [f"{i}" for i in range(398)] + ["0", "1"]
    splits = assign_splits(rows, "cluster", SplitConfig(kind="cluster"))
    assert pd.Series(splits).groupby(rows["pixels"]).nunique().max() == 1
    assert pd.Series(splits).groupby(rows["cluster"]).nunique().max() == 1
