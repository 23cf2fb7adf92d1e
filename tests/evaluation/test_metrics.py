"""Every metric against scikit-learn or by hand."""

import numpy as np
import pytest
from sklearn import metrics as reference

from pcam_model.core.errors import ConfigError, ModelError, SplitError
from pcam_model.evaluation import metrics
from pcam_model.evaluation.operating_points import choose_threshold, fixed_threshold
from tests.evaluation.conftest import predictions

TABLE = predictions(500, 7)
LABELS, LOGITS = TABLE["label"].to_numpy(), TABLE[["logit0", "logit1"]].to_numpy()


def test_probability_is_the_softmax_and_never_overflows():
    probability = metrics.tumour_probability(np.array([[0.0, 0.0], [1.0, 3.0], [-2000.0, 2000.0], [2000.0, -2000.0]]))
    assert probability == pytest.approx([0.5, 1 / (1 + np.exp(-2)), 1.0, 0.0])


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_figures_equal_scikit_learn(threshold):
    probability = metrics.tumour_probability(LOGITS)
    predicted = (probability >= threshold).astype(int)
    ours = metrics.threshold_metrics(LABELS, LOGITS, threshold)
    assert ours["accuracy"] == pytest.approx(reference.accuracy_score(LABELS, predicted))
    assert ours["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(LABELS, predicted))
    assert ours["sensitivity"] == pytest.approx(reference.recall_score(LABELS, predicted))
    assert ours["specificity"] == pytest.approx(reference.recall_score(LABELS, predicted, pos_label=0))
    assert ours["auc"] == pytest.approx(reference.roc_auc_score(LABELS, probability))
    counts = metrics.confusion(LABELS, probability, threshold)
    assert list(counts) == reference.confusion_matrix(LABELS, predicted).ravel().tolist()


def test_auc_ranks_logits_that_saturate_as_probabilities():
    logits = np.array([[0.0, 800.0], [0.0, 900.0], [0.0, 1000.0], [0.0, 1100.0]])
    assert metrics.auc(np.array([0, 0, 1, 1]), logits) == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_refused_by_row(value):
    broken = LOGITS.copy()
    broken[3, 1] = value
    with pytest.raises(ModelError, match=r"1 of 500 .* patch 3, .* lower lr"):
        metrics.threshold_metrics(LABELS, broken)


@pytest.mark.parametrize(("labels", "message"), [([1, 1], "2 of class 1"), ([], "none"), ([0, 2], "1 of class 2")])
def test_one_class_is_refused_with_what_was_found(labels, message):
    with pytest.raises(SplitError, match=message):
        metrics.threshold_metrics(np.array(labels), np.zeros((len(labels), 2)))


def test_probabilities_outside_the_unit_are_refused():
    with pytest.raises(ModelError, match="expected logits"):
        metrics.tumour_probability(np.array([0.2, 1.2]))


def test_operating_points_are_the_best_of_all_thresholds():
    probability = metrics.tumour_probability(LOGITS)
    every = {
        each: metrics.confusion_metrics(metrics.confusion(LABELS, probability, each)) for each in np.unique(probability)
    }
    youden = every[choose_threshold("youden", LABELS, probability)]
    assert youden["balanced_accuracy"] == max(each["balanced_accuracy"] for each in every.values())
    highest = max(each for each, had in every.items() if had["sensitivity"] >= 0.95)
    assert choose_threshold("sensitivity95", LABELS, probability) == highest
    lowest = min(each for each, had in every.items() if had["specificity"] >= 0.95)
    assert choose_threshold("specificity95", LABELS, probability) == lowest
    assert choose_threshold("0.3", LABELS, probability) == 0.3


@pytest.mark.parametrize("point", ["0", "1", "nan", "best"])
def test_an_unknown_operating_point_is_named(point):
    with pytest.raises(ConfigError, match=f"operating_point is '{point}', expected youden"):
        fixed_threshold(point)
