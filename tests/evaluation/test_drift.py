"""Drift: permutation tests with a known truth, the reference file, and real changes of patches."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

from pcam_model.core.errors import ModelError
from pcam_model.data.sample import SamplePatches
from pcam_model.data.stain_moments import MOMENTS, stain_moments
from pcam_model.evaluation.drift import compare_with_reference
from pcam_model.evaluation.drift_reference import (
    DRIFT_FILE,
    MAX_BYTES,
    REFERENCE_SIZE,
    DriftSample,
    draw_rows,
    read_reference,
    write_reference,
)
from pcam_model.evaluation.two_sample import auc_of_ranks, classifier_test, distance_test, permuted_labels


def normal_sample(rng, count, shift=0.0, slides=()) -> DriftSample:
    features = rng.normal(size=(count, 512)).astype(np.float32)
    features[:, :20] += shift
    return DriftSample(rng.normal(size=(count, len(MOMENTS))).astype(np.float32), features, rng.random(count), slides)


def test_statistics_are_those_of_scipy_and_scikit_learn():
    rng = np.random.default_rng(0)
    values, labels = np.round(rng.normal(size=300), 1), np.repeat([0, 1], [180, 120])
    permuted = permuted_labels(labels, np.arange(300), 50, rng)
    assert permuted.shape == (300, 51)
    assert (permuted[:, 0] == labels).all()
    assert (permuted.sum(axis=0) == 120).all()
    distance = distance_test(values, permuted)
    assert distance.statistic == pytest.approx(ks_2samp(values[:180], values[180:]).statistic)
    ranks = np.argsort(np.argsort(values + np.arange(300) * 1e-6)) + 1.0
    assert auc_of_ranks(ranks[:, None], labels[:, None])[0] == pytest.approx(roc_auc_score(labels, ranks))


def test_out_of_fold_scores_are_those_of_a_ridge_regression_on_the_other_folds():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, 5))
    labels = (features[:, 0] + rng.normal(size=60) > 0).astype(int)
    test = classifier_test(features, permuted_labels(labels, np.arange(60), 99, rng), np.arange(60), rng)
    assert test.statistic > 0.7
    assert test.p <= 0.02
    assert roc_auc_score(labels, test.scores) == pytest.approx(test.statistic)


@pytest.mark.parametrize("slides", [False, True])
def test_the_same_domain_seldom_alarms_and_another_one_does(slides):
    alarms = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        names = [tuple(f"s{i % 12}" for i in range(n)) if slides else () for n in (120, 60)]
        alarms.append(compare_with_reference(normal_sample(rng, 120, 0, names[0]), normal_sample(rng, 60, 0, names[1])))
    assert sum(result.drifted for result in alarms) <= 4
    assert {result.unit for result in alarms} == {"slide" if slides else "patch"}
    rng = np.random.default_rng(99)
    found = compare_with_reference(normal_sample(rng, 120, 0, names[0]), normal_sample(rng, 60, 1.0, names[1]))
    assert found.drifted
    assert found.tests["features"].drifted
    assert not found.tests["predictions"].drifted
    assert found.meaning.startswith("drift: domain classifier on features")
    assert len(found.slides) == (10 if slides else 0)


def test_slides_that_differ_within_a_domain_are_no_drift_where_slides_are_exchanged():
    alarms = {"slide": 0, "patch": 0}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        shifts = rng.normal(size=(24, 512)).astype(np.float32)  # each slide has a stain of its own
        sides = [np.repeat(np.arange(first, first + 12), 10) for first in (0, 12)]
        for names in (True, False):
            samples = [
                DriftSample(
                    np.zeros((120, len(MOMENTS)), np.float32),
                    shifts[side] + rng.normal(size=(120, 512)).astype(np.float32),
                    np.full(120, 0.5),
                    tuple(map(str, side)) if names else (),
                )
                for side in sides
            ]
            result = compare_with_reference(samples[0], samples[1], seed)
            alarms[result.unit] += result.drifted
    assert alarms["slide"] <= 1
    assert alarms["patch"] > alarms["slide"]


def gamma(image):
    return image.point([round(255 * (value / 255) ** 1.2) for value in range(256)] * 3)


def jpeg(image):
    content = io.BytesIO()
    image.save(content, "JPEG", quality=30)
    return Image.open(content).convert("RGB")


CHANGES = {"gamma": gamma, "jpeg": jpeg, "blur": lambda image: image.filter(ImageFilter.GaussianBlur(1))}


@pytest.mark.parametrize("change", CHANGES)
def test_stain_moments_tell_changes_of_scanner_and_file(change):
    source = SamplePatches(120, 0)
    patches = np.stack([source.patch(row) for row in range(120)])
    changed = np.stack([np.asarray(CHANGES[change](Image.fromarray(patch))) for patch in patches[60:]])
    moments = np.concatenate([stain_moments(patches[:60]), stain_moments(changed)])
    rng = np.random.default_rng(0)
    labels = permuted_labels(np.repeat([0, 1], 60), np.arange(120), 199, rng)
    assert classifier_test(moments, labels, np.arange(120), rng).p <= 0.01


def test_a_reference_is_read_as_it_was_written_and_is_small(tmp_path):
    rng = np.random.default_rng(2)
    sample = normal_sample(
        rng, REFERENCE_SIZE, slides=tuple(f"slide with a long name {i}" for i in range(REFERENCE_SIZE))
    )
    write_reference(tmp_path, sample)
    assert (tmp_path / DRIFT_FILE).stat().st_size < MAX_BYTES / 2
    read = read_reference(tmp_path)
    assert np.array_equal(read.moments, sample.moments)
    assert np.abs(read.features - sample.features).max() < 0.01
    assert np.abs(read.probabilities - sample.probabilities).max() < 1e-6
    assert read.slides == sample.slides


def test_a_reference_that_is_missing_or_damaged_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"has no drift\.safetensors: the model was published without a reference"):
        read_reference(tmp_path)
    write_reference(tmp_path, normal_sample(np.random.default_rng(3), 30))
    whole = (tmp_path / DRIFT_FILE).read_bytes()
    nan = DriftSample(np.full((3, 8), np.nan, np.float32), np.zeros((3, 512), np.float32), np.zeros(3))
    for content in (b"", b"x" * 100, whole[:-7], whole[:60], bytes(MAX_BYTES + 1)):
        (tmp_path / DRIFT_FILE).write_bytes(content)
        with pytest.raises(ModelError, match="is damaged"):
            read_reference(tmp_path)
    for wrong in (nan, DriftSample(np.zeros((3, 7), np.float32), np.zeros((3, 512), np.float32), np.zeros(3))):
        write_reference(tmp_path, wrong)
        with pytest.raises(ModelError, match="is damaged"):
            read_reference(tmp_path)


def test_rows_are_drawn_without_repetition_and_in_order():
    assert draw_rows(5, 10, 0).tolist() == [0, 1, 2, 3, 4]
    drawn = draw_rows(1000, 20, 1)
    assert len(set(drawn.tolist())) == 20
    assert drawn.tolist() == sorted(drawn.tolist())
    assert drawn.tolist() == draw_rows(1000, 20, 1).tolist() != draw_rows(1000, 20, 2).tolist()
