"""The sample is the same everywhere, looks alike in both classes, and its label stands in the centre."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pcam_model.data.pack import load_patches, load_table
from pcam_model.data.sample import CENTRE, SIZE, SLIDES, SamplePatches, distractor_positions


@pytest.fixture(scope="module")
def drawn():
    source = SamplePatches(480, 2)
    return source.table, np.stack([source.patch(row) for row in range(480)])


def test_a_patch_is_a_function_of_seed_and_index(drawn):
    _, pixels = drawn
    assert np.array_equal(SamplePatches(300, 2).patch(299), pixels[299])
    assert not np.array_equal(SamplePatches(300, 3).patch(299), pixels[299])
    assert len({patch.tobytes() for patch in pixels}) == 480


def test_slides_stand_on_one_side_each_and_every_side_has_both_classes(drawn):
    rows, _ = drawn
    assert rows.groupby("slide")["origin"].nunique().eq(1).all()
    assert rows["slide"].nunique() == SLIDES
    assert rows.groupby("origin")["label"].mean().sub(0.5).abs().max() < 0.01
    assert set(SamplePatches(48, 2).table.query("origin == 'test'")["label"]) == {0, 1}


def test_colour_means_do_not_tell_the_label(drawn):
    rows, pixels = drawn
    colour, label = pixels.mean((1, 2)), rows["label"].to_numpy(int)
    train = (rows["origin"] == "train").to_numpy()
    model = LogisticRegression(max_iter=1000).fit(colour[train], label[train])
    assert roc_auc_score(label[~train], model.decision_function(colour[~train])) < 0.75


def test_no_distractor_touches_the_centre():
    places = [place for seed in range(200) for place in distractor_positions(np.random.default_rng(seed), 12)]
    reach = np.abs(np.array(places) - (SIZE - 1) / 2).max(axis=1)
    assert len(places) > 100
    assert reach.min() > CENTRE / 2 + 8


def test_the_sample_packs_with_its_slides_and_sides(pack):
    made = pack(max_patches=48)
    rows = load_table(made)
    assert load_patches(made).shape == (48, 96, 96, 3)
    assert rows["slide"].nunique() == SLIDES
    assert set(rows["origin"]) == {"train", "valid", "test"}
    assert pack(max_patches=48, seed=3).digest != made.digest
