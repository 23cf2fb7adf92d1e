"""Every metric against scikit-learn, with any weights; intervals by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, norm
from sklearn import metrics as reference

from pcam_model.core.estimate import METRIC_TITLES
from pcam_model.evaluation import metrics
from pcam_model.evaluation.bootstrap import (
    CURVE_GRID,
    ResamplingUnits,
    ScoredPatches,
    WeightedMetrics,
    bootstrap_weights,
    concat_resamples,
    resampling_units,
)
from pcam_model.evaluation.calibration import BINS
from pcam_model.evaluation.intervals import bca_interval, estimate_intervals
from tests.evaluation.conftest import predictions


def score(table: pd.DataFrame, *, threshold: float = 0.5, by_slide: bool = True) -> ScoredPatches:
    log_odds = metrics.log_odds(table[["logit0", "logit1"]].to_numpy())
    probability = metrics.sigmoid(log_odds)
    units = resampling_units(table["slide"] if by_slide else pd.Series([None] * len(table)))
    predicted = {"own": probability >= threshold}
    calibrated = metrics.sigmoid(log_odds / 1.3)
    return ScoredPatches(table["label"].to_numpy(), log_odds, calibrated, probability, predicted, units)


def score_log_odds(label: np.ndarray, log_odds: np.ndarray, threshold: float = 0.0, heat: float = 1.0) -> ScoredPatches:
    """Independent patches whose probabilities are overconfident by `heat`."""
    probability, units = metrics.sigmoid(heat * log_odds), ResamplingUnits(np.arange(len(label)), len(label), "patches")
    return ScoredPatches(label, log_odds, probability, probability, {"own": log_odds > threshold}, units)


def reference_metrics(scored: ScoredPatches, weight: np.ndarray) -> dict[str, float]:
    """All metrics by scikit-learn, by hand where it has none."""
    y, p, predicted = scored.labels, scored.probability, scored.predicted["own"].astype(int)
    edges = np.minimum((p * BINS).astype(int), BINS - 1)
    bins = [weight * (edges == k) for k in range(BINS)]
    weighted = {"sample_weight": weight}
    return {
        "auc": reference.roc_auc_score(y, scored.log_odds, **weighted),
        "average_precision": reference.average_precision_score(y, scored.log_odds, **weighted),
        "accuracy": reference.accuracy_score(y, predicted, **weighted),
        "balanced_accuracy": reference.balanced_accuracy_score(y, predicted, **weighted),
        "sensitivity": reference.recall_score(y, predicted, **weighted),
        "specificity": reference.recall_score(y, predicted, pos_label=0, **weighted),
        "ppv": reference.precision_score(y, predicted, **weighted),
        "npv": reference.precision_score(y, predicted, pos_label=0, **weighted),
        "f1": reference.f1_score(y, predicted, **weighted),
        "nll": reference.log_loss(y, p, **weighted),
        "brier": reference.brier_score_loss(y, p, **weighted),
        "ece": sum(
            one.sum() / weight.sum() * abs(np.average(y, weights=one) - np.average(p, weights=one))
            for one in bins
            if one.sum()
        ),
    }


@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "many ties"])
@pytest.mark.parametrize("by_slide", [True, False], ids=["slides", "patches"])
def test_every_metric_of_a_resample_is_scikit_learns(by_slide, ties):
    table = predictions(300, 4)
    if ties:
        table[["logit0", "logit1"]] = table[["logit0", "logit1"]].round()
    scored = score(table, threshold=0.3, by_slide=by_slide)
    weights = np.vstack([np.ones((1, scored.units.count)), *bootstrap_weights(scored.units, 5, 2)])
    resampled = WeightedMetrics(scored)(weights)
    ours = {**resampled.by_point["own"], **resampled.threshold_free}
    for row, weight in enumerate(weights):
        for name, value in reference_metrics(scored, weight[scored.units.index].astype(float)).items():
            assert ours[name][row] == pytest.approx(value, abs=1e-9), name
    assert set(METRIC_TITLES) <= set(ours)


def test_the_curves_go_through_scikit_learns_points():
    scored = score(predictions(300, 4))
    curves = WeightedMetrics(scored)(np.ones((1, scored.units.count))).curves
    fpr, tpr, _ = reference.roc_curve(scored.labels, scored.log_odds, drop_intermediate=False)
    assert curves["roc"][0] == pytest.approx(np.interp(CURVE_GRID, fpr, tpr), abs=0.02)
    precision, recall, _ = reference.precision_recall_curve(scored.labels, scored.log_odds)
    at_recall = [precision[np.flatnonzero(recall >= each - 1e-9)[-1]] for each in CURVE_GRID[1:]]
    assert curves["pr"][0][1:] == pytest.approx(at_recall)


def test_the_precision_at_no_recall_is_that_of_the_first_patch_which_a_resample_holds():
    scored = score_log_odds(np.array([1, 1, 0, 0]), np.array([3.0, 2.0, 1.0, 0.0]))
    curves = WeightedMetrics(scored)(np.array([[0, 1, 1, 1]])).curves
    assert curves["pr"][0][0] == 1


def test_chunks_of_resamples_are_the_resamples():
    scored = score(predictions(60, 4))
    weighted, (weights,) = WeightedMetrics(scored), list(bootstrap_weights(scored.units, 6, 2))
    whole, joined = weighted(weights), concat_resamples(weighted(chunk) for chunk in np.split(weights, 3))
    assert (whole.threshold_free["auc"] == joined.threshold_free["auc"]).all()
    assert (whole.by_point["own"]["f1"] == joined.by_point["own"]["f1"]).all()
    assert np.array_equal(whole.curves["roc"], joined.curves["roc"], equal_nan=True)


def test_slides_are_resampled_only_when_every_patch_has_one():
    assert resampling_units(pd.Series(["a", "b", "a"])).kind == "slides"
    for slides in (["a", None, "b"], ["a", "", "b"], [None] * 3, ["a", "a", "a"]):
        assert resampling_units(pd.Series(slides)).kind == "patches", slides


def test_weights_are_a_function_of_the_seed_and_keep_the_count():
    units = ResamplingUnits(np.arange(50), 50, "patches")
    one, again, other = (np.vstack(list(bootstrap_weights(units, 20, seed))) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert (one.sum(axis=1) == 50).all()


def coverage(trials: int, slides: int, per_slide: int, spread: float, *, by_slide: bool) -> dict[str, float]:
    """Share of the trials whose interval holds the true value, for patches whose slide shifts all of its log odds."""
    rng, hits = np.random.default_rng(9), {"auc": 0, "sensitivity": 0}
    true = {"auc": norm.cdf(2 / np.sqrt(2 * (1 + spread**2))), "sensitivity": norm.cdf(1 / np.sqrt(1 + spread**2))}
    for _ in range(trials):
        slide = np.repeat(np.arange(slides), per_slide)
        label = rng.integers(0, 2, slides * per_slide)
        noise = rng.normal(0, 1, len(slide)) + rng.normal(0, spread, slides)[slide]
        odds = 2 * label - 1 + noise
        table = pd.DataFrame({"slide": slide.astype(str), "label": label, "logit0": -odds / 2, "logit1": odds / 2})
        estimates = estimate_intervals(score(table, by_slide=by_slide), 3, resamples=200, bands=False)
        figures = {**estimates.by_point["own"], **estimates.threshold_free}
        for name in hits:
            hits[name] += figures[name].low <= true[name] <= figures[name].high
    return {name: count / trials for name, count in hits.items()}


@pytest.mark.parametrize("trials", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_intervals_over_patches_hold_the_truth_95_times_in_100(trials):
    shares = coverage(trials, 200, 1, 0.0, by_slide=False)
    assert all(0.90 <= share <= 0.99 for share in shares.values()), shares


def test_intervals_over_slides_hold_the_truth_where_those_over_patches_do_not():
    by_slide, by_patch = (coverage(120, 60, 10, 0.7, by_slide=each) for each in (True, False))
    assert all(0.88 <= share <= 1 for share in by_slide.values()), by_slide
    assert by_patch["sensitivity"] < 0.85, by_patch


@pytest.mark.parametrize(("heat", "true"), [(1.0, 0.0), (1.5, 0.0528)])
def test_the_interval_of_the_ece_holds_the_truth_even_where_that_is_nothing(heat, true):
    rng, held, trials = np.random.default_rng(4), 0, 60
    for _ in range(trials):
        log_odds = rng.normal(0, 2.5, 600)
        label = (rng.random(600) < metrics.sigmoid(log_odds)).astype(int)
        scored = score_log_odds(label, log_odds, heat=heat)
        ece = estimate_intervals(scored, 3, resamples=200, bands=False).threshold_free["ece"]
        held += ece.low - 1e-4 <= true <= ece.high
    assert held >= 0.83 * trials


def test_a_faultless_split_still_has_an_interval():
    log_odds = np.linspace(-3, 3, 40)
    estimates = estimate_intervals(score_log_odds((log_odds > 0).astype(int), log_odds), 3, resamples=100)
    own = estimates.by_point["own"]
    assert own["sensitivity"].high == 1.0
    assert own["sensitivity"].low == pytest.approx(0.025 ** (1 / 20))  # Clopper and Pearson, 20 of 20
    assert own["accuracy"].low == pytest.approx(0.025 ** (1 / 40))
    assert estimates.threshold_free["auc"].low == pytest.approx(0.025 ** (1 / 20))


def test_a_ppv_of_a_single_positive_prediction_has_a_wide_interval():
    log_odds = np.linspace(-3, 3, 40)
    scored = score_log_odds((log_odds > 0).astype(int), log_odds, threshold=2.9)
    ppv = estimate_intervals(scored, 3, resamples=100).by_point["own"]["ppv"]
    assert (ppv.value, ppv.low) == (1.0, pytest.approx(0.025))


def test_the_interval_is_scipys_bca_where_units_are_many():
    sample = np.random.default_rng(6).exponential(size=80)
    theirs = bootstrap((sample,), np.mean, method="BCa", n_resamples=4000, rng=np.random.default_rng(1))
    jackknifed = (sample.sum() - sample) / (len(sample) - 1)
    low, high = bca_interval(sample.mean(), theirs.bootstrap_distribution, jackknifed, 10**9)
    assert (low, high) == pytest.approx(theirs.confidence_interval, rel=2e-3)
    wider = bca_interval(sample.mean(), theirs.bootstrap_distribution, jackknifed, 8)
    assert wider[0] < low
    assert wider[1] > high


@pytest.mark.parametrize("trials", [40, pytest.param(100, marks=pytest.mark.slow)])
def test_few_slides_are_made_up_for_by_wider_intervals(trials):
    shares = coverage(trials, 8, 20, 0.7, by_slide=True)
    assert all(share >= 0.85 for share in shares.values()), shares


@pytest.mark.parametrize("slides", [2, 3])
def test_a_tiny_split_has_figures_though_resamples_hold_one_class_or_ties(slides):
    table = predictions(20, 3, slides=slides).assign(logit0=0.0)
    table["logit1"] = table["logit1"].round()
    table["label"] = (table["slide"] == "slide_000").astype(int)  # a resample of one slide alone has one class
    estimates = estimate_intervals(score(table), 3, resamples=100)
    for figure in (*estimates.by_point["own"].values(), *estimates.threshold_free.values()):
        assert np.isfinite([figure.low, figure.high]).all()
        assert figure.low <= figure.value <= figure.high
