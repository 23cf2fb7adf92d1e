"""Nothing is chosen on the patches that are reported."""

import numpy as np
import pandas as pd
import pytest

from pcam_model.core.errors import ModelError
from pcam_model.evaluation import metrics
from pcam_model.evaluation.cross_fit import calibrate_splits
from pcam_model.evaluation.evidence import ScoreConfig
from pcam_model.evaluation.operating_points import choose_threshold
from pcam_model.evaluation.report_schema import Calibration
from tests.evaluation.conftest import predictions, split_predictions


def noise(count: int, seed: int) -> pd.DataFrame:
    """Logits that do not depend on the labels."""
    return predictions(count, seed, skill=0.0).assign(slide=None)


def test_noise_looks_like_noise_on_the_split_that_chose_though_the_choice_itself_looks_better(make_evidence):
    honest, naive = [], []
    for seed in range(40):
        table = noise(60, seed)
        _, splits = calibrate_splits(
            make_evidence(predictions=split_predictions(valid=table), score=ScoreConfig(operating_point="youden"))
        )
        scored = splits["valid"].scored
        counts = metrics.confusion_counts(scored.labels, scored.predicted["youden"])
        honest.append(metrics.confusion_metrics(counts)["balanced_accuracy"])
        threshold = choose_threshold("youden", scored.labels, scored.uncalibrated)
        naive.append(metrics.threshold_metrics(scored.labels, scored.uncalibrated, threshold)["balanced_accuracy"])
    assert np.mean(naive) > 0.55
    assert abs(np.mean(honest) - 0.5) < 0.03


def test_the_test_split_changes_nothing_that_is_chosen(make_evidence):
    valid = predictions(400, 1)
    calibration, splits = calibrate_splits(
        make_evidence(predictions=split_predictions(valid=valid, test=predictions(400, 2)))
    )
    other, _ = calibrate_splits(make_evidence(predictions=split_predictions(valid=valid, test=noise(300, 3))))
    assert calibration == other
    scored = splits["test"].scored
    assert scored.probability == pytest.approx(metrics.sigmoid(scored.log_odds / calibration.temperature))
    for point, threshold in calibration.thresholds.items():
        assert (scored.predicted[point] == (scored.probability >= threshold)).all()


def test_a_slide_never_chooses_for_itself(make_evidence):
    table = predictions(400, 1)
    held_out = (table["slide"] == "slide_003").to_numpy()
    spoilt = table.copy()
    spoilt.loc[held_out, ["logit0", "logit1"]] *= -1  # wrong everywhere on that slide
    temperatures = []
    for each in (table, spoilt):
        scored = calibrate_splits(make_evidence(predictions=split_predictions(valid=each)))[1]["valid"].scored
        probability = scored.probability[held_out]
        temperatures.append(scored.log_odds[held_out] / np.log(probability / (1 - probability)))
    assert np.allclose(temperatures, temperatures[0][0])


def test_what_came_with_a_model_is_used_as_it_is(make_evidence):
    saved = Calibration(temperature=2.0, thresholds={"youden": 0.3, "0.5": 0.5})
    evidence = make_evidence(
        predictions=split_predictions(valid=predictions(100, 1)),
        calibration=saved,
        score=ScoreConfig(operating_point="0.4"),
    )
    calibration, splits = calibrate_splits(evidence)
    assert calibration.temperature == 2.0
    assert calibration.thresholds == {"0.4": 0.4, "youden": 0.3}
    assert "when the model was trained" in splits["valid"].method


def test_without_a_validation_split_nothing_is_chosen_and_the_report_says_so(make_evidence):
    test_only, score = split_predictions(test=predictions(100, 1)), ScoreConfig(operating_point="youden")
    calibration, splits = calibrate_splits(make_evidence(predictions=test_only, score=score))
    assert calibration.temperature == 1.0
    assert calibration.thresholds == {"0.5": 0.5}
    assert "no validation split" in splits["test"].method


def test_too_few_slides_to_cross_fit_are_reported(make_evidence):
    table = predictions(100, 1, slides=2)
    table = table.assign(label=(table["slide"] == "slide_000").astype(int))
    calibration, splits = calibrate_splits(make_evidence(predictions=split_predictions(valid=table)))
    assert "too few slides" in splits["valid"].method
    assert set(splits["valid"].scored.predicted) == {"0.5"}
    assert calibration.temperature != 1.0


def test_a_missing_column_is_named(make_evidence):
    lacking = predictions(50, 1).drop(columns=["slide", "logit1"])
    with pytest.raises(ModelError, match="valid predictions lack slide, logit1"):
        calibrate_splits(make_evidence(predictions=split_predictions(valid=lacking)))
