"""Nothing is chosen on the patches that are reported."""

import numpy as np
import pandas as pd
import pytest

from pcam_model.core.errors import ModelError
from pcam_model.evaluation import metrics
from pcam_model.evaluation import operating_points as operating
from pcam_model.evaluation.cross_fit import judge_splits
from pcam_model.evaluation.report import ScoreConfig
from tests.evaluation.conftest import predictions


def noise(count: int, seed: int) -> pd.DataFrame:
    """Odds that know nothing of the labels."""
    return predictions(count, seed, skill=0.0).assign(slide=None)


def test_noise_looks_like_noise_on_the_part_that_chose_though_the_choice_itself_looks_better(make_evidence):
    honest, naive = [], []
    for seed in range(40):
        table = noise(60, seed)
        _, sides = judge_splits(
            make_evidence(predictions={"valid": table}, score=ScoreConfig(operating_point="youden"))
        )
        scored = sides["valid"].scored
        counts = metrics.cells(scored.labels, scored.called["youden"]).sum(axis=0)
        honest.append(metrics.rates(counts)["balanced_accuracy"])
        threshold = operating.choose("youden", scored.labels, scored.raw)
        naive.append(metrics.figures(scored.labels, scored.raw, threshold)["balanced_accuracy"])
    assert np.mean(naive) > 0.55
    assert abs(np.mean(honest) - 0.5) < 0.03


def test_the_test_part_changes_nothing_that_is_chosen(make_evidence):
    parts = {"valid": predictions(400, 1), "test": predictions(400, 2)}
    chosen, sides = judge_splits(make_evidence(predictions=parts))
    other, _ = judge_splits(make_evidence(predictions={**parts, "test": noise(300, 3)}))
    assert chosen == other
    scored = sides["test"].scored
    assert scored.probability == pytest.approx(metrics.sigmoid(scored.odds / chosen.temperature))
    for point, threshold in chosen.thresholds.items():
        assert (scored.called[point] == (scored.probability >= threshold)).all()


def test_a_slide_never_chooses_for_itself(make_evidence):
    table = predictions(400, 1)
    here = (table["slide"] == "slide_003").to_numpy()
    spoilt = table.copy()
    spoilt.loc[here, ["logit0", "logit1"]] *= -1  # wrong everywhere on that slide
    temperatures = []
    for each in (table, spoilt):
        scored = judge_splits(make_evidence(predictions={"valid": each}))[1]["valid"].scored
        said = scored.probability[here]
        temperatures.append(scored.odds[here] / np.log(said / (1 - said)))
    assert np.allclose(temperatures, temperatures[0][0])


def test_what_came_with_a_model_is_used_as_it_is(make_evidence):
    saved = {"temperature": 2.0, "thresholds": {"youden": 0.3, "0.5": 0.5}}
    chosen, sides = judge_splits(make_evidence(predictions={"valid": predictions(100, 1)}, chosen=saved,
                                              score=ScoreConfig(operating_point="0.4")))  # fmt: skip
    assert chosen.temperature == 2.0 and chosen.thresholds == {"0.4": 0.4, "youden": 0.3}
    assert "when the model was trained" in sides["valid"].how


def test_without_a_validation_part_nothing_is_chosen_and_it_is_said(make_evidence):
    chosen, sides = judge_splits(make_evidence(predictions={"test": predictions(100, 1)},
                                              score=ScoreConfig(operating_point="youden")))  # fmt: skip
    assert chosen.temperature == 1.0 and chosen.thresholds == {"0.5": 0.5}
    assert "no validation part" in sides["test"].how


def test_too_few_slides_to_cross_fit_are_told(make_evidence):
    table = predictions(100, 1, slides=2)
    table = table.assign(label=(table["slide"] == "slide_000").astype(int))
    chosen, sides = judge_splits(make_evidence(predictions={"valid": table}))
    assert "too few slides" in sides["valid"].how and set(sides["valid"].scored.called) == {"0.5"}
    assert chosen.temperature != 1.0


def test_a_missing_column_is_named(make_evidence):
    with pytest.raises(ModelError, match="valid predictions lack slide, logit1"):
        judge_splits(make_evidence(predictions={"valid": predictions(50, 1).drop(columns=["slide", "logit1"])}))
