"""Every figure against scikit-learn, with any weights; intervals by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, norm
from sklearn import metrics as reference

from pcam_model.evaluation import bootstrap as resample
from pcam_model.evaluation import metrics
from pcam_model.evaluation.bootstrap import ResamplingUnits, ScoringResult, Statistics, draws, units
from pcam_model.evaluation.calibration import BINS
from pcam_model.evaluation.intervals import bca_interval, measure
from tests.evaluation.conftest import predictions


def scored(table: pd.DataFrame, *, threshold: float = 0.5, by_slide: bool = True) -> ScoringResult:
    odds = metrics.margin(table[["logit0", "logit1"]].to_numpy())
    probability = metrics.sigmoid(odds)
    of = units(table["slide"] if by_slide else pd.Series([None] * len(table)))
    return ScoringResult(table["label"].to_numpy(), odds, metrics.sigmoid(odds / 1.3), probability,
                  {"own": probability >= threshold}, of)  # fmt: skip


def expected(judged: ScoringResult, weight: np.ndarray) -> dict[str, float]:
    """All figures by scikit-learn, by hand where it has none."""
    y, p, called = judged.labels, judged.probability, judged.called["own"].astype(int)
    edges = np.minimum((p * BINS).astype(int), BINS - 1)
    inside = [weight * (edges == each) for each in range(BINS)]
    kept = {"sample_weight": weight}
    return {
        "auc": reference.roc_auc_score(y, judged.odds, **kept),
        "average_precision": reference.average_precision_score(y, judged.odds, **kept),
        "accuracy": reference.accuracy_score(y, called, **kept),
        "balanced_accuracy": reference.balanced_accuracy_score(y, called, **kept),
        "sensitivity": reference.recall_score(y, called, **kept),
        "specificity": reference.recall_score(y, called, pos_label=0, **kept),
        "ppv": reference.precision_score(y, called, **kept),
        "npv": reference.precision_score(y, called, pos_label=0, **kept),
        "f1": reference.f1_score(y, called, **kept),
        "nll": reference.log_loss(y, p, **kept),
        "brier": reference.brier_score_loss(y, p, **kept),
        "ece": sum(part.sum() / weight.sum() * abs(np.average(y, weights=part) - np.average(p, weights=part))
                   for part in inside if part.sum()),
    }  # fmt: skip


@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "many ties"])
@pytest.mark.parametrize("by_slide", [True, False], ids=["slides", "patches"])
def test_every_figure_of_a_resample_is_scikit_learns(by_slide, ties):
    table = predictions(300, 4)
    if ties:
        table[["logit0", "logit1"]] = table[["logit0", "logit1"]].round()
    judged = scored(table, threshold=0.3, by_slide=by_slide)
    weights = np.vstack([np.ones((1, judged.units.count)), *draws(judged.units, 5, 2, patches=300)])
    ours = Statistics(judged)(weights)
    for row, weight in enumerate(weights):
        for name, value in expected(judged, weight[judged.units.of].astype(float)).items():
            had = {**ours["own"], **ours[""]}[name][row]
            assert had == pytest.approx(value, abs=1e-9), name
    assert set(metrics.NAMES) <= {*ours["own"], *ours[""]}


def test_the_curves_go_through_scikit_learns_points():
    judged = scored(predictions(300, 4))
    curves = Statistics(judged)(np.ones((1, judged.units.count)))["curves"]
    false_rate, sensitivity, _ = reference.roc_curve(judged.labels, judged.odds, drop_intermediate=False)
    assert curves["roc"][0] == pytest.approx(np.interp(resample.GRID, false_rate, sensitivity), abs=0.02)
    precision, recall, _ = reference.precision_recall_curve(judged.labels, judged.odds)
    at = [precision[np.flatnonzero(recall >= each - 1e-9)[-1]] for each in resample.GRID[1:]]
    assert curves["pr"][0][1:] == pytest.approx(at)


def test_slides_are_drawn_only_when_every_patch_has_one():
    assert units(pd.Series(["a", "b", "a"])).kind == "slides"
    for slides in (["a", None, "b"], ["a", "", "b"], [None] * 3, ["a", "a", "a"]):
        assert units(pd.Series(slides)).kind == "patches", slides


def test_draws_are_a_function_of_the_seed_and_keep_the_count():
    of = ResamplingUnits(np.arange(50), 50, "patches")
    one, again, other = (np.vstack(list(draws(of, 20, seed, patches=50))) for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).any() and (one.sum(axis=1) == 50).all()


def coverage(trials: int, slides: int, each: int, spread: float, *, by_slide: bool) -> dict[str, float]:
    """Share of the trials whose interval holds the true value, for patches whose slide shifts all of its odds."""
    random, hits = np.random.default_rng(9), {"auc": 0, "sensitivity": 0}
    true = {"auc": norm.cdf(2 / np.sqrt(2 * (1 + spread**2))), "sensitivity": norm.cdf(1 / np.sqrt(1 + spread**2))}
    for _ in range(trials):
        slide = np.repeat(np.arange(slides), each)
        label = random.integers(0, 2, slides * each)
        odds = 2 * label - 1 + random.normal(0, 1, slides * each) + random.normal(0, spread, slides)[slide]
        table = pd.DataFrame({"slide": slide.astype(str), "label": label, "logit0": -odds / 2, "logit1": odds / 2})
        measured = measure(scored(table, by_slide=by_slide), 3, resamples=200, bands=False).points
        figures = {**measured["own"], **measured[""]}
        for name in hits:
            hits[name] += figures[name].low <= true[name] <= figures[name].high
    return {name: count / trials for name, count in hits.items()}


def test_intervals_over_patches_hold_the_truth_95_times_in_100():
    assert all(0.90 <= share <= 0.99 for share in coverage(200, 200, 1, 0.0, by_slide=False).values())


def test_intervals_over_slides_hold_the_truth_where_those_over_patches_do_not():
    by_slide, by_patch = (coverage(120, 60, 10, 0.7, by_slide=each) for each in (True, False))
    assert all(0.88 <= share <= 0.99 for share in by_slide.values()), by_slide
    assert by_patch["sensitivity"] < 0.85, by_patch


@pytest.mark.parametrize(("heat", "true"), [(1.0, 0.0), (1.5, 0.0528)])
def test_the_interval_of_the_ece_holds_the_truth_even_where_that_is_nothing(heat, true):
    random, held = np.random.default_rng(4), 0
    for _ in range(60):
        odds = random.normal(0, 2.5, 600)
        label = (random.random(600) < metrics.sigmoid(odds)).astype(int)
        said = metrics.sigmoid(heat * odds)
        judged = ScoringResult(
            label, odds, said, said, {"own": said >= 0.5}, ResamplingUnits(np.arange(600), 600, "patches")
        )
        ece = measure(judged, 3, resamples=200, bands=False).points[""]["ece"]
        held += ece.low - 1e-4 <= true <= ece.high
    assert held >= 50


def test_a_faultless_side_still_has_an_interval():
    odds = np.linspace(-3, 3, 40)
    label = (odds > 0).astype(int)
    judged = ScoringResult(label, odds, metrics.sigmoid(odds), metrics.sigmoid(odds), {"own": odds > 0},
                    ResamplingUnits(np.arange(40), 40, "patches"))  # fmt: skip
    points = measure(judged, 3, resamples=100).points
    assert points["own"]["sensitivity"].high == 1.0
    assert points["own"]["sensitivity"].low == pytest.approx(0.025 ** (1 / 20))  # Clopper and Pearson, 20 of 20
    assert points["own"]["accuracy"].low == pytest.approx(0.025 ** (1 / 40))
    assert points[""]["auc"].low == pytest.approx(0.025 ** (1 / 20))


def test_a_ppv_of_one_patch_that_was_called_says_next_to_nothing():
    odds = np.linspace(-3, 3, 40)
    judged = ScoringResult((odds > 0).astype(int), odds, metrics.sigmoid(odds), metrics.sigmoid(odds), {"own": odds > 2.9},
                    ResamplingUnits(np.arange(40), 40, "patches"))  # fmt: skip
    ppv = measure(judged, 3, resamples=100).points["own"]["ppv"]
    assert (ppv.value, ppv.low) == (1.0, pytest.approx(0.025))


def test_the_interval_is_scipys_bca_where_units_are_many():
    sample = np.random.default_rng(6).exponential(size=80)
    theirs = bootstrap((sample,), np.mean, method="BCa", n_resamples=4000, rng=np.random.default_rng(1))
    without = (sample.sum() - sample) / (len(sample) - 1)
    low, high = bca_interval(sample.mean(), theirs.bootstrap_distribution, without, 10**9)
    assert (low, high) == pytest.approx(theirs.confidence_interval, rel=2e-3)
    wider = bca_interval(sample.mean(), theirs.bootstrap_distribution, without, 8)
    assert wider[0] < low and wider[1] > high


def test_few_slides_are_made_up_for_by_wider_intervals():
    shares = coverage(100, 8, 20, 0.7, by_slide=True)
    assert all(share >= 0.85 for share in shares.values()), shares


@pytest.mark.parametrize("slides", [2, 3])
def test_a_tiny_part_has_figures_though_draws_hold_one_class_or_ties(slides):
    table = predictions(20, 3, slides=slides).assign(logit0=0.0)
    table["logit1"] = table["logit1"].round()
    table["label"] = (table["slide"] == "slide_000").astype(int)  # a draw of one slide alone has one class
    judged = scored(table)
    points = measure(judged, 3, resamples=100).points
    for figure in (*points["own"].values(), *points[""].values()):
        assert np.isfinite([figure.low, figure.high]).all() and figure.low <= figure.value <= figure.high
