"""DeLong's test against the example of its paper, and against what a difference must do."""

import numpy as np
import pytest

from pcam_model.core.errors import ConfigError
from pcam_model.evaluation import compare
from tests.evaluation.conftest import predictions

# Albumin, total protein, K-G score and outcome of the ovarian cancer patients of DeLong, DeLong and Clarke-Pearson
# (1988) that have all three, as the SAS/STAT manual prints them (PROC LOGISTIC, "Comparing ROC curves").
PATIENTS_TEXT = (
    "3.0 5.8 10 0; 3.2 6.3 5 1; 3.9 6.8 3 1; 2.8 4.8 6 0; 3.2 5.8 3 1; 0.9 4.0 5 0; 2.5 5.7 8 0; 1.6 5.6 5 1; 3.8 "
    "5.7 5 1; 3.7 6.7 6 1; 3.2 5.4 4 1; 3.8 6.6 6 1; 4.1 6.6 5 1; 3.6 5.7 5 1; 4.3 7.0 4 1; 3.6 6.7 4 0; 2.3 4.4 "
    "6 1; 4.2 7.6 4 0; 4.0 6.6 6 0; 3.5 5.8 6 1; 3.8 6.8 7 1; 3.0 4.7 8 0; 4.5 7.4 5 1; 3.7 7.4 5 1; 3.1 6.6 6 1; "
    "4.1 8.2 6 1; 4.3 7.0 5 1; 4.3 6.5 4 1; 3.2 5.1 5 1; 2.6 4.7 6 1; 3.3 6.8 6 0; 1.7 4.0 7 0; 3.7 6.1 5 1; 3.3 "
    "6.3 7 1; 4.2 7.7 6 1; 3.5 6.2 5 1; 2.9 5.7 9 0; 2.1 4.8 7 1; 2.8 6.2 8 0; 4.0 7.0 7 1; 3.3 5.7 6 1; 3.7 6.9 "
    "5 1; 3.6 6.6 5 1"
)
PATIENTS = np.array([row.split() for row in PATIENTS_TEXT.split(";")], float)
OUTCOME = PATIENTS[:, 3]
SCORES = np.stack([PATIENTS[:, 0], 10 - PATIENTS[:, 2], PATIENTS[:, 1]])  # albumin, K-G, total protein


def test_delong_gives_the_published_areas_errors_and_contrast():
    areas, covariance = compare.delong_covariance(OUTCOME, SCORES)
    assert areas == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0927, 0.1028, 0.1000], abs=6e-5)
    contrast = np.array([[1, -1, 0], [0, -1, 1]])
    gaps = contrast @ areas
    assert gaps @ np.linalg.inv(contrast @ covariance @ contrast.T) @ gaps == pytest.approx(2.5340, abs=5e-5)


def test_the_test_of_a_pair_follows_from_the_covariance():
    areas, z, p = compare.delong(OUTCOME, SCORES[1], SCORES[0])
    assert areas == pytest.approx((0.7258, 0.7366), abs=5e-5)
    assert z == pytest.approx(0.0107527 / 0.0953436, rel=1e-4)
    assert p == pytest.approx(0.9102, abs=1e-4)


def test_equal_rankings_differ_by_nothing():
    _, z, p = compare.delong(OUTCOME, SCORES[0], 3 * SCORES[0] + 1)
    assert (z, p) == (0.0, 1.0)


def test_under_no_difference_p_is_below_5_percent_5_times_in_100():
    rng, low = np.random.default_rng(3), 0
    for _ in range(200):
        label = rng.integers(0, 2, 120)
        shared = label + rng.normal(0, 1, 120)
        low += compare.delong(label, shared + rng.normal(0, 1, 120), shared + rng.normal(0, 1, 120))[2] < 0.05
    assert 0.02 <= low / 200 <= 0.09


def test_a_better_model_is_found_better_by_both_ways_and_in_any_order_of_rows():
    good = predictions(600, 5)
    noise = np.random.default_rng(1).normal(0, 4, 600)
    poor = good.assign(logit1=good["logit1"] + noise).sample(frac=1, random_state=1)
    difference = compare.compare_with_first({"poor": poor, "good": good})[0]
    assert difference.unit == "slides"
    assert difference.first == "poor"
    assert difference.value > 0
    assert difference.low > 0
    assert difference.p < 0.01
    assert difference.low <= difference.value <= difference.high
    assert "good less poor" in compare.describe_difference(difference)


def test_an_infinite_z_is_null_and_can_be_written_as_json():
    table = predictions(20, 5)
    right, wrong = (table.assign(logit0=0.0, logit1=sign * (2.0 * table["label"] - 1)) for sign in (1, -1))
    difference = compare.auc_difference({"wrong": wrong, "right": right}, resamples=50)
    assert difference.z is None
    assert difference.p == 0
    assert "z infinite" in compare.describe_difference(difference)
    assert '"z":null' in difference.model_dump_json()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table.iloc[1:], "of which 99 are the same"),
        (lambda table: table.assign(id=[f"x{row}" for row in range(100)]), "of which 0 are the same"),
        (lambda table: table.assign(label=1 - table["label"]), "different labels"),
    ],
)
def test_other_patches_or_labels_are_refused(spoil, message):
    table = predictions(100, 5)
    with pytest.raises(ConfigError, match=message):
        compare.auc_difference({"a": table, "b": spoil(table)})


def test_one_run_alone_is_refused():
    with pytest.raises(ConfigError, match="two different runs or more"):
        compare.compare_with_first({"a": predictions(100, 5)})
