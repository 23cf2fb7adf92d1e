"""Scores of slides and of lesions: figures over labelled slides, with regressions that never judge their own slides."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from slide_results import write_result
from typer.testing import CliRunner

from pcam_model.cli.main import app
from pcam_model.core.errors import SourceError, SplitError
from pcam_model.slides import score_report
from pcam_model.slides.heatmap_features import FEATURES
from pcam_model.slides.result_map import read_map
from pcam_model.slides.score_report import SlideScoreReport, score_slides
from pcam_model.slides.slide_labels import SlideLabel, read_slide_labels
from pcam_model.slides.slide_regression import SlideRegression, cross_fit, fit_regression

SIDE = 40


def heat(label: int, seed: int) -> NDArray[np.float32]:
    """A noisy map; with tumour in the cells 10 to 20 in both directions where the label is 1."""
    random = np.random.default_rng([seed, label])
    values = np.minimum(random.beta(1, 12, (SIDE, SIDE)), 0.4).astype(np.float32)
    if random.random() < 0.4:  # noise that the maximum takes for tumour
        values[tuple(random.integers(25, SIDE, 2))] = 0.97
    if label:
        values[10:20, 10:20] = random.uniform(0.5, 0.95, (10, 10))
    values[:3] = np.nan
    return values


def outline(path: Path, downsample: float = 4.0) -> None:
    """Annotate the tumour of `heat`: the cells' squares, in pixels of level 0, as ASAP writes it."""
    low, high = ((cell * 32 + 32) * downsample for cell in (10, 20))
    corners = [(low, low), (high, low), (high, high), (low, high)]
    points = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(corners))
    path.write_text(
        '<?xml version="1.0"?><ASAP_Annotations><Annotations><Annotation Name="a" Type="Polygon" PartOfGroup="Tumor" '
        f'Color="#F4FA58"><Coordinates>{points}</Coordinates></Annotation></Annotations></ASAP_Annotations>'
    )


def make_results(folder: Path, count: int = 24) -> list[SlideLabel]:
    (folder / "outlines").mkdir(parents=True)
    labels = []
    for number in range(count):
        name, label = f"slide{number:02d}", number % 2
        write_result(folder / "out", name, heat(label, number))
        if label:
            outline(folder / "outlines" / f"{name}.xml")
        labels.append(SlideLabel(name, label, ""))
    return labels


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SlideLabel]]:
    """Results of 24 slides, half of them with tumour, and their labels."""
    folder = tmp_path_factory.mktemp("scores")
    return folder, make_results(folder)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples: the intervals' width is not what is tested."""
    estimate, froc = score_report.estimate_intervals, score_report.estimate_froc
    monkeypatch.setattr(score_report, "estimate_intervals", lambda *a, **k: estimate(*a, **k, resamples=200))
    monkeypatch.setattr(score_report, "estimate_froc", lambda *a: froc(*a, resamples=200))


def test_the_figures_are_those_of_the_scores_and_their_intervals_are_over_slides(
    made: tuple[Path, list[SlideLabel]],
) -> None:
    folder, labels = made
    report = score_slides(folder / "out", labels, folder / "outlines")
    assert (report.slides, report.tumour_slides, report.model, report.left_out) == (24, 12, "made", ())
    truth = [label.label for label in labels]
    for name in ("maximum", "top_mean", "tumour_mm2", "logistic_regression"):
        values = [report.values[label.slide][name] for label in labels]
        auc = report.scores[name]["auc"]
        assert auc.value == pytest.approx(roc_auc_score(truth, values))
        assert auc.low is not None
        assert auc.high is not None
        assert auc.low <= auc.value <= auc.high
    assert 0.5 < report.scores["maximum"]["auc"].value < 0.95 < report.scores["logistic_regression"]["auc"].value
    assert {"brier", "ece", "nll"} <= report.scores["logistic_regression"].keys()
    assert report.method.startswith("cross-fitted")
    assert report.lesions is not None
    assert (report.lesions.lesions, report.lesions.slides, report.lesions.isolated) == (12, 24, 0)
    assert report.lesions.sensitivity["8"].value == pytest.approx(11 / 12)  # the lowest probability is no point
    assert report.lesions.false_positives == sum(
        float(np.nanmax(heat(label, number)[25:, 25:])) > 0.5 for number, label in enumerate(truth)
    )
    assert SlideScoreReport.model_validate_json(report.model_dump_json()) == report


def test_the_regression_is_fitted_on_training_slides_only_and_they_are_not_reported_on(
    made: tuple[Path, list[SlideLabel]],
) -> None:
    folder, labels = made
    named = [label._replace(split="train" if number < 12 else "test") for number, label in enumerate(labels)]
    report = score_slides(folder / "out", named)
    assert set(report.values) == {label.slide for label in labels[12:]}
    assert report.regression is not None
    assert report.regression.slides == 12
    assert report.method == "fitted on 12 training slides"
    assert report.lesions is None
    flipped = [label._replace(label=1 - label.label) if label.split == "test" else label for label in named]
    assert score_slides(folder / "out", flipped).regression == report.regression


def test_cross_fitted_log_odds_do_not_know_the_slides_label() -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(60, len(FEATURES))), np.arange(60) % 2
    log_odds = cross_fit(FEATURES, features, labels, seed=0)
    assert 0.2 < roc_auc_score(labels, log_odds) < 0.7
    fitted = fit_regression(FEATURES, features, labels, seed=0)
    assert roc_auc_score(labels, fitted.log_odds(features)) > 0.65
    assert SlideRegression.model_validate_json(fitted.model_dump_json()) == fitted
    np.testing.assert_array_equal(log_odds, cross_fit(FEATURES, features, labels, seed=0))


def test_few_slides_have_no_regression_and_it_is_said(made: tuple[Path, list[SlideLabel]]) -> None:
    folder, labels = made
    report = score_slides(folder / "out", labels[:8])
    assert "logistic_regression" not in report.scores
    assert report.regression is None
    assert report.method == "no regression: of one class there are 4 labelled slides, 5 are needed"


def test_a_map_is_read_as_it_was_written(tmp_path: Path) -> None:
    values = heat(1, 7)
    result = write_result(tmp_path, "a", values, downsample=3.7)
    np.testing.assert_array_equal(read_map(tmp_path / "a", result).values, values)


def test_a_mistake_is_said(made: tuple[Path, list[SlideLabel]], tmp_path: Path) -> None:
    folder, labels = made
    with pytest.raises(SourceError, match="holds no slide's result"):
        score_slides(tmp_path, labels)
    with pytest.raises(SourceError, match="no slide of the labels has a result"):
        score_slides(folder / "out", [SlideLabel("other", 1, "")])
    with pytest.raises(SplitError, match="0 of class 0 and 12 of class 1"):
        score_slides(folder / "out", labels[1::2])
    wrong = [labels[1]._replace(label=0), labels[3]]
    with pytest.raises(SourceError, match="label is no tumour, but its annotations show tumour"):
        score_slides(folder / "out", wrong, folder / "outlines")
    with pytest.raises(SourceError, match=r"label is tumour, but its annotations show none \(no file of slide00"):
        score_slides(folder / "out", [labels[2], labels[0]._replace(label=1)], folder / "outlines")
    write_result(tmp_path / "two", "a", heat(0, 1))
    write_result(tmp_path / "two", "b", heat(1, 2), model="other")
    with pytest.raises(SourceError, match="the results are of made at stride 32 and other at stride 32"):
        score_slides(tmp_path / "two", [SlideLabel("a", 0, ""), SlideLabel("b", 1, "")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide;tumour\na;1\n", "columns are slide,tumour; expected slide,label"),
        ("slide,label\na,perhaps\n", "label of a is 'perhaps'"),
        ("slide,label\na,1\na,0\n", "a is labelled twice"),
        ("slide,label,split\na,1,later\n", "split of a is 'later'"),
    ],
)
def test_a_table_that_is_none_of_labels_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(SourceError, match=words):
        read_slide_labels(tmp_path / "labels.csv")
    with pytest.raises(SourceError, match=r"absent.csv: No such file or directory; give a CSV with .* slide,label"):
        read_slide_labels(tmp_path / "absent.csv")


def test_the_command_prints_tables_or_json_and_writes_the_figures(
    made: tuple[Path, list[SlideLabel]], tmp_path: Path
) -> None:
    folder, labels = made
    lines = [f"{label.slide}.tif,{['normal', 'tumor'][label.label]}" for label in labels]
    (tmp_path / "labels.csv").write_text("\n".join(["slide,label", *lines, "absent,1"]))
    words = ["slides", "score", str(folder / "out"), str(tmp_path / "labels.csv")]
    words += ["--annotations", str(folder / "outlines")]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "scores.json")], catch_exceptions=False)
    assert done.exit_code == 0
    assert "made: 24 slides, 12 of them with tumour" in done.stdout
    assert "at 0.25 a slide" in done.stdout
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout) == json.loads((tmp_path / "scores.json").read_text())
    assert json.loads(done.stdout)["left_out"] == ["absent"]
