"""Conformal sets: their quantiles against references, their coverage on new slides, and where they are left out."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from pcam_model.core.conformal import ConformalQuantiles
from pcam_model.evaluation.bootstrap import resampling_units
from pcam_model.evaluation.conformal import conformal_quantile, fit_quantiles, min_groups
from pcam_model.evaluation.cross_fit import calibrate_splits
from pcam_model.evaluation.evidence import ScoreConfig
from pcam_model.evaluation.metrics import sigmoid
from pcam_model.evaluation.report import write_report
from tests.evaluation.conftest import predictions, split_predictions


def scored(count: int, seed: int, **options: float) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Labels and probabilities of made-up predictions, and their table."""
    table = predictions(count, seed, **options)  # type: ignore[arg-type]
    return table["label"].to_numpy(), sigmoid(table["logit1"] - table["logit0"]), table


def test_without_groups_the_quantile_is_the_textbooks() -> None:
    scores = np.random.default_rng(1).random(137)
    for alpha in (0.05, 0.1, 0.31):
        rank = math.ceil(138 * (1 - alpha))  # Vovk, Gammerman and Shafer; written out
        assert conformal_quantile(scores, np.arange(137), alpha) == np.sort(scores)[rank - 1]


def test_each_group_has_the_same_weight_however_many_patches_it_has() -> None:
    groups = np.repeat(np.arange(9), [1, 2, 3, 4, 5, 60, 7, 8, 900])
    scores = np.random.default_rng(2).random(len(groups))
    repeated = [np.repeat(np.sort(scores[groups == g]), 2520 * 10 // (groups == g).sum()) for g in range(9)]
    everything = np.sort(np.concatenate(repeated))
    assert math.isinf(conformal_quantile(scores, groups, 0.09))
    for alpha in (0.1, 0.2, 0.4):
        expected = everything[math.ceil((1 - alpha) * 10 / 9 * len(everything) - 1e-6) - 1]
        assert conformal_quantile(scores, groups, alpha) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25])
def test_the_sets_are_those_of_crepes(alpha: float) -> None:
    crepes = pytest.importorskip("crepes")
    labels, probability, _ = scored(500, 3)
    _, new, _ = scored(300, 4)
    quantiles = fit_quantiles(labels, probability, resampling_units(pd.Series([None] * 500)), alpha)
    assert quantiles is not None
    reference = crepes.ConformalClassifier()
    reference.fit(np.where(labels == 1, 1 - probability, probability), bins=labels)
    columns = []
    for label, nonconformity in ((0, new), (1, 1 - new)):
        p_values = reference.predict_p(np.stack([nonconformity] * 2, axis=1), bins=np.full(300, label), smoothing=False)
        columns.append(p_values[:, 0] > alpha)
    assert np.array_equal(quantiles.sets(new), np.stack(columns, axis=1))


def test_on_slides_never_seen_both_classes_are_covered() -> None:
    coverage = []
    for seed in range(60):
        labels, probability, table = scored(900, seed, slides=30)
        quantiles = fit_quantiles(labels, probability, resampling_units(table["slide"]), 0.1)
        assert quantiles is not None
        new_labels, new, _ = scored(900, 1000 + seed, slides=30)
        covered = quantiles.sets(new)[np.arange(900), new_labels]
        coverage.append([covered[new_labels == label].mean() for label in (0, 1)])
    mean = np.mean(coverage, axis=0)
    assert (mean > 0.895).all()
    assert (mean < 0.9 + 2 / 31).all()  # a slide to come weighs 1 / 31, and counts as not covered


def test_a_decision_is_the_class_that_stands_alone() -> None:
    both = ConformalQuantiles(alpha=0.1, no_tumour=0.7, tumour=0.6, unit="slides", units=(9, 9))
    assert both.decisions(np.array([0.1, 0.4, 0.7, 0.71])) == ["no tumour", "unsure", "unsure", "tumour"]
    none = both.model_copy(update={"no_tumour": 0.3, "tumour": 0.2})
    assert none.decisions(np.array([0.3, 0.5, 0.8])) == ["no tumour", "unsure", "tumour"]


def test_too_few_slides_make_no_decisions_and_the_report_says_why(tmp_path, make_evidence) -> None:
    report = write_report(tmp_path, make_evidence())  # 8 slides
    assert report.conformal is None
    assert min_groups(0.1) == 9
    assert min_groups(0.05) == 19
    reason = "8 slides without and 8 with tumour, and at least 9 of each are needed for score.conformal_alpha=0.1"
    assert reason in (tmp_path / "MODEL_CARD.md").read_text()
    assert reason in (tmp_path / "report.html").read_text()
    assert "decision" not in pd.read_parquet(tmp_path / "predictions.parquet")


def test_decisions_are_reported_with_intervals_and_published(tmp_path, make_evidence) -> None:
    tables = {"valid": predictions(600, 1, slides=24), "test": predictions(400, 2, slides=24)}
    report = write_report(tmp_path, make_evidence(predictions=split_predictions(**tables)))
    assert report.conformal is not None
    assert report.conformal.unit == "slides"
    content = json.loads((tmp_path / "report.json").read_bytes())
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    for split in ("valid", "test"):
        figures, rows = content["splits"][split]["abstention"], table[table["split"] == split]
        unsure = figures["unsure"]
        assert unsure["value"] == pytest.approx((rows["decision"] == "unsure").mean())
        assert 0 <= unsure["low"] < unsure["value"] < unsure["high"] <= 1
        wrong = rows["decision"] == np.where(rows["label"] == 1, "no tumour", "tumour")
        decided = rows["decision"] != "unsure"
        assert figures["accuracy_decided"]["value"] == pytest.approx(1 - wrong[decided].mean())
    expected = report.conformal.decisions(table["probability"][table["split"] == "test"].to_numpy())
    assert table["decision"][table["split"] == "test"].tolist() == expected
    assert "Coverage, tumour" in (tmp_path / "report.html").read_text()


def test_the_reported_split_calibrates_nothing(make_evidence) -> None:
    valid, test = predictions(600, 1, slides=24), predictions(400, 2, slides=24)
    spoilt = test.assign(logit1=-test["logit1"])
    first, second = (
        calibrate_splits(make_evidence(predictions=split_predictions(valid=valid, test=each)))[0]
        for each in (test, spoilt)
    )
    assert first.conformal == second.conformal
    table = valid.copy()
    held_out = (table["slide"] == "slide_003").to_numpy()
    table.loc[held_out, ["logit0", "logit1"]] *= -0.2
    sets = [
        calibrate_splits(make_evidence(predictions=split_predictions(valid=each), score=ScoreConfig()))[1]["valid"]
        for each in (valid, table)
    ]
    limits = []
    for each in sets:  # what decides on the slide, in log odds, is the same whatever its own patches say
        odds, decided = each.scored.log_odds[held_out], each.scored.sets[held_out, 1]
        limits.append((odds[~decided].max(initial=-99), odds[decided].min(initial=99)))
    assert max(low for low, _ in limits) < min(high for _, high in limits)
