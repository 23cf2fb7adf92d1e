"""A stated share of tumour: probabilities that are right where the model is used, and figures for that share."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from a_model import make_model
from sklearn.metrics import log_loss

from pcam_model.core.platt_scaling import PlattScaling
from pcam_model.evaluation import metrics
from pcam_model.evaluation.calibration import class_weights, reliability_curve
from pcam_model.evaluation.cross_fit import calibrate_splits
from pcam_model.evaluation.evidence import ScoreConfig
from pcam_model.evaluation.report import write_report
from pcam_model.evaluation.report_schema import ReportContent
from tests.evaluation.conftest import split_predictions


def patches(count: int, share: float, seed: int) -> pd.DataFrame:
    """Predictions of a perfectly calibrated network for a share of tumour of one half, on another share."""
    rng = np.random.default_rng(seed)
    label = (rng.random(count) < share).astype(int)
    odds = rng.normal(np.where(label == 1, 2, -2), 2)  # log density ratio of these two normals: the value itself
    return pd.DataFrame({
        "id": [f"{seed}-{row}" for row in range(count)], "slide": None, "label": label,
        "logit0": -odds / 2, "logit1": odds / 2,
    })  # fmt: skip


def ece(labels: np.ndarray, probability: np.ndarray) -> float:
    curve = reliability_curve(labels, probability)
    gaps = np.abs(np.subtract(curve.mean_predicted, curve.observed_fraction))
    return float((gaps * curve.count).sum() / np.sum(curve.count))


def test_probabilities_are_right_where_tumour_is_as_rare_as_stated(make_evidence):
    valid, rare = patches(4000, 0.5, 1), patches(20_000, 0.05, 2)
    odds, label = metrics.log_odds(rare[["logit0", "logit1"]].to_numpy()), rare["label"].to_numpy()
    found = {}
    for prevalence in (None, 0.05):
        score = ScoreConfig(prevalence=prevalence)
        calibration, _ = calibrate_splits(make_evidence(predictions=split_predictions(valid=valid), score=score))
        found[prevalence] = ece(label, calibration.scaling.probability(odds))
    assert found[None] > 0.05
    assert found[0.05] < 0.01


def test_figures_are_those_of_patches_of_that_share(make_evidence):
    evidence = make_evidence(
        predictions=split_predictions(valid=patches(4000, 0.5, 1), test=patches(20_000, 0.5, 3)),
        score=ScoreConfig(prevalence=0.05),
    )
    calibration, splits = calibrate_splits(evidence)
    scored, rare = splits["test"].scored, patches(40_000, 0.05, 4)
    expected = log_loss(
        rare["label"], calibration.scaling.probability(metrics.log_odds(rare[["logit0", "logit1"]].to_numpy()))
    )
    assert log_loss(scored.labels, scored.probability, sample_weight=scored.weights) == pytest.approx(
        expected, rel=0.05
    )


def test_rules_call_the_same_patches_whatever_the_share(make_evidence):
    tables = split_predictions(valid=patches(1000, 0.5, 1), test=patches(1000, 0.5, 2))
    without, corrected = (
        calibrate_splits(make_evidence(predictions=tables, score=ScoreConfig(prevalence=share)))[1]["test"].scored
        for share in (None, 0.03)
    )
    assert np.array_equal(corrected.sets, without.sets)
    assert 0 < corrected.sets.sum() < corrected.sets.size
    for rule in ("youden", "sensitivity95", "specificity95"):
        assert (corrected.predicted[rule] == without.predicted[rule]).all()
    assert corrected.predicted["0.5"].sum() < without.predicted["0.5"].sum()


def test_a_fold_of_one_class_is_calibrated_like_any_other(make_evidence):
    table = patches(120, 0.5, 1)
    table["slide"] = [f"{'tumour' if label else 'normal'} {row % 3}" for row, label in enumerate(table["label"])]
    score = ScoreConfig(prevalence=0.1)
    scored = calibrate_splits(make_evidence(predictions=split_predictions(valid=table), score=score))[1]["valid"].scored
    assert np.average(scored.labels, weights=scored.weights) == pytest.approx(0.1)
    assert np.isfinite(scored.probability).all()


def test_the_report_says_what_its_probabilities_are_for(make_evidence, tmp_path: Path):
    predictions = split_predictions(valid=patches(1000, 0.5, 1), test=patches(1000, 0.5, 2))
    score = ScoreConfig(prevalence=0.02)
    report = write_report(tmp_path, make_evidence(predictions=predictions, score=score))
    content = ReportContent.model_validate_json((tmp_path / "report.json").read_bytes())
    test = content.splits["test"]
    weights = class_weights(predictions["test"].table["label"].to_numpy(), 0.02)
    table = pd.read_parquet(tmp_path / "predictions.parquet").query("split == 'test'")
    assert test.figures["nll"].value == pytest.approx(
        log_loss(table["label"], table["probability"], sample_weight=weights), rel=1e-6
    )
    assert report.bias == content.calibration.bias == pytest.approx(np.log(0.02 / 0.98), abs=0.2)
    sensitivity, specificity = (test.figures[name].value for name in ("sensitivity", "specificity"))
    share = sensitivity * 0.02 / (sensitivity * 0.02 + (1 - specificity) * 0.98)
    for name in ("MODEL_CARD.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "for a share of tumour of 2.00%" in text
        assert f"At that share {share:.1%} of the patches called tumour have it" in text


def test_the_model_gives_the_probabilities_of_its_report(tmp_path: Path):
    model = make_model(tmp_path / "model").model_copy(update={"temperature": 2.0, "bias": -3.0})
    logits = np.array([[0.5, -0.5], [-4.0, 3.0]], np.float32)
    expected = 1 / (1 + np.exp(-(np.array([-1.0, 7.0]) / 2 - 3)))
    assert model.probabilities(logits) == pytest.approx(expected)
    assert PlattScaling(temperature=2.0, bias=-3.0).probability(np.array([-1.0, 7.0])) == pytest.approx(expected)
