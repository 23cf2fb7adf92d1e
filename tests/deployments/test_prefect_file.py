"""What prefect.yaml says."""

from pathlib import Path

import yaml

from pcam_model.plan import TrainPlan

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"


def test_full_train_shows_the_sample_plan_in_the_open() -> None:
    deployed = {one["name"]: one for one in yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]}
    plan = yaml.safe_load((DEPLOYMENTS / "plans" / "sample.yaml").read_text())
    assert deployed["full-train"]["parameters"] == plan
    assert TrainPlan.model_validate(plan).source.kind == "sample"
