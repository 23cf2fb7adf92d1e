"""The files of a report, their figures, and what happens where parts of the evidence are missing."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from pcam_model.core.errors import SplitError
from pcam_model.evaluation import calibration, metrics
from pcam_model.evaluation.evidence import Report, ScoreConfig
from pcam_model.evaluation.operating_points import choose_threshold
from pcam_model.evaluation.predictions import SplitPredictions
from pcam_model.evaluation.report import write_report
from pcam_model.evaluation.report_schema import ReportContent, json_schema
from tests.evaluation.conftest import history, lr_curve, predictions, split_predictions

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, make_evidence) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, write_report(folder, make_evidence(score=ScoreConfig(operating_point="youden")))


def test_a_report_has_its_figures_and_pictures(written):
    folder, report = written
    assert set(report.files) == {file.name for file in folder.iterdir()}
    assert {"metrics.json", "report.json", "report.html", "MODEL_CARD.md", "predictions.parquet"} <= set(report.files)
    for name in ("lr", "losses", "confusion", "roc", "pr", "reliability"):
        with Image.open(folder / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    test = predictions(400, 2)
    expected = metrics.auc(test["label"], test[["logit0", "logit1"]].to_numpy())
    assert report.figures["test"]["auc"].value == pytest.approx(expected)
    assert type(report).model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    "parts",
    [
        {"lr_curves": {"finetune": lr_curve(1e-4)}, "history": history("finetune", 120, 4, 0.45, 0.2)},
        {"lr_curves": {}, "history": [], "predictions": split_predictions(valid=predictions(200, 3))},
        {"predictions": split_predictions(test=predictions(200, 3)), "score": ScoreConfig(operating_point="0.3")},
    ],
    ids=["one stage, its rate given", "nothing recorded, no test part", "test part only"],
)
def test_a_report_does_without(tmp_path, make_evidence, parts):
    report = write_report(tmp_path, make_evidence(**parts))
    assert all((tmp_path / name).is_file() for name in report.files)


def test_a_chosen_threshold_comes_from_validation_and_is_reported_on_test_alone(written):
    folder, report = written
    valid = predictions(400, 1)
    labels, logits = valid["label"].to_numpy(), valid[["logit0", "logit1"]].to_numpy()
    content = ReportContent.model_validate_json((folder / "report.json").read_bytes())
    temperature = calibration.fit_temperature(labels, metrics.log_odds(logits))
    threshold = choose_threshold("youden", labels, metrics.tumour_probability(logits / temperature))
    assert content.calibration.temperature == pytest.approx(temperature)
    assert content.splits["test"].threshold == pytest.approx(threshold)
    assert (report.temperature, report.thresholds["youden"]) == pytest.approx((temperature, threshold))
    assert "cross-fitted" in content.splits["valid"].method


def test_report_json_is_what_its_schema_and_its_records_say(written):
    folder, report = written
    content = ReportContent.model_validate_json((folder / "report.json").read_bytes())
    assert content.splits["test"].figures == report.figures["test"]
    assert content.lr_finder["finetune"].suggestion == 1e-4
    assert [row.epoch for row in content.epochs] == [
        1,
        2,
        1,
        2,
        3,
        4,
    ]
    raw = json.loads((folder / "report.json").read_bytes())
    assert set(raw) == set(json.loads(json_schema())["properties"])
    assert raw == json.loads(content.model_dump_json())
    short = json.loads((folder / "metrics.json").read_bytes())
    assert "curves" not in short["splits"]["test"]
    assert short["splits"]["test"]["figures"] == raw["splits"]["test"]["figures"]


def test_the_published_schema_is_that_of_the_records():
    command = "python -m pcam_model.evaluation.report_schema > docs/report.schema.json"
    assert SCHEMA.read_text("utf-8") == json_schema(), f"run {command}"


def test_the_pictures_are_small(written):
    folder, _ = written
    assert max(file.stat().st_size for file in folder.glob("*.png")) < 100_000


def test_one_class_names_the_split_and_writes_nothing(tmp_path, make_evidence):
    one_class = predictions(400, 2).assign(label=1)
    evidence = make_evidence(predictions=split_predictions(valid=predictions(400, 1), test=one_class))
    with pytest.raises(SplitError, match=r"The test patches .* 400 of class 1"):
        write_report(tmp_path, evidence)
    assert list(tmp_path.iterdir()) == []


def test_no_split_at_all_is_refused(tmp_path, make_evidence):
    with pytest.raises(SplitError, match="expected at least one"):
        write_report(tmp_path, make_evidence(predictions={}))


def test_the_same_evidence_gives_the_same_bytes(tmp_path, written, make_evidence):
    write_report(tmp_path, make_evidence(score=ScoreConfig(operating_point="youden")))
    for file in written[0].iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes(), file.name


def test_the_config_takes_a_number_and_refuses_nonsense():
    assert ScoreConfig.model_validate({"operating_point": 0.4}).operating_point == "0.4"
    with pytest.raises(ValidationError, match="operating_point"):
        ScoreConfig(operating_point="soon")


def test_unlabelled_patches_become_a_submission_in_their_own_order(tmp_path, make_evidence):
    unlabelled = predictions(50, 9).sample(frac=1, random_state=1).assign(label=pd.array([None] * 50, dtype="Int8"))
    few = split_predictions(valid=predictions(100, 1))
    report = write_report(tmp_path, make_evidence(unlabelled=SplitPredictions(unlabelled), predictions=few))
    lines = (tmp_path / "submission.csv").read_bytes().decode().split("\n")
    assert lines[0] == "id,label"
    assert lines[-1] == ""
    assert len(lines) == 52
    sent = pd.read_csv(tmp_path / "submission.csv")
    odds = (unlabelled["logit1"] - unlabelled["logit0"]).to_numpy() / report.temperature
    assert sent["id"].tolist() == unlabelled["id"].tolist()
    assert sent["label"].to_numpy() == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-8)
    assert "submission.csv" in report.files
    assert "50 patches, predicted in" in (tmp_path / "report.html").read_text()
