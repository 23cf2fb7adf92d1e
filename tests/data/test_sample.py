"""The sample is reproducible, looks alike in both classes, and only its centre decides the label."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pcam_model.data.image import CENTRE_SIZE, PATCH_SIZE
from pcam_model.data.pack import load_patches, load_table
from pcam_model.data.sample import SLIDES, SamplePatches, distractor_positions


@pytest.fixture(scope="module")
def sample_patches():
    source = SamplePatches(480, 2)
    return source.table, np.stack([source.patch(row) for row in range(480)])


def test_a_patch_is_a_function_of_seed_and_index(sample_patches):
    _, pixels = sample_patches
    assert np.array_equal(SamplePatches(300, 2).patch(299), pixels[299])
    assert not np.array_equal(SamplePatches(300, 3).patch(299), pixels[299])
    assert len({patch.tobytes() for patch in pixels}) == 480


def test_each_slide_is_in_one_split_and_every_split_has_both_classes(sample_patches):
    rows, _ = sample_patches
    assert rows.groupby("slide")["origin"].nunique().eq(1).all()
    assert rows["slide"].nunique() == SLIDES
    assert rows.groupby("origin")["label"].mean().sub(0.5).abs().max() < 0.01
    assert set(SamplePatches(48, 2).table.query("origin == 'test'")["label"]) == {0, 1}


def test_colour_means_do_not_tell_the_label(sample_patches):
    rows, pixels = sample_patches
    colour, label = pixels.mean((1, 2)), rows["label"].to_numpy(int)
    train = (rows["origin"] == "train").to_numpy()
    model = LogisticRegression(max_iter=1000).fit(colour[train], label[train])
    assert roc_auc_score(label[~train], model.decision_function(colour[~train])) < 0.75


def test_no_distractor_touches_the_centre():
    positions = [position for seed in range(200) for position in distractor_positions(np.random.default_rng(seed), 12)]
    reach = np.abs(np.array(positions) - (PATCH_SIZE - 1) / 2).max(axis=1)
    assert len(positions) > 100
    assert reach.min() > CENTRE_SIZE / 2 + 8


def test_the_sample_is_packed_with_its_slides_and_splits(pack):
    built = pack(max_patches=48)
    rows = load_table(built)
    assert load_patches(built).shape == (48, 96, 96, 3)
    assert rows["slide"].nunique() == SLIDES
    assert set(rows["origin"]) == {"train", "valid", "test"}
    assert pack(max_patches=48, seed=3).digest != built.digest
