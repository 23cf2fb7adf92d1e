"""What the deployment files say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pcam_model.config import TrainConfig

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"


def deployed(file: str, name: str) -> dict[str, Any]:
    found = yaml.safe_load((DEPLOYMENTS / file).read_text())["deployments"]
    return {one["name"]: one for one in found}[name]


@pytest.mark.parametrize(
    ("file", "name", "config"),
    [
        ("local/prefect.yaml", "full-train", "sample.yaml"),
        ("local/prefect.yaml", "full-train-local", "sample.yaml"),
        ("prefect.yaml", "smoke", "sample.yaml"),
        ("prefect.yaml", "full-train", "recipe.yaml"),
    ],
)
def test_a_deployment_shows_its_plan_in_the_open(file: str, name: str, config: str) -> None:
    asked = yaml.safe_load((DEPLOYMENTS / "configs" / config).read_text())
    assert deployed(file, name)["parameters"] == asked
    assert TrainConfig.model_validate(asked).source.kind == asked["source"]["kind"]


def test_the_gpu_container_asks_for_all_gpus_and_shared_memory_and_one_run_at_a_time() -> None:
    container = deployed("prefect.yaml", "full-train")["work_pool"]["job_variables"]["container_create_kwargs"]
    assert container["device_requests"] == [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]
    assert (container["shm_size"], container["read_only"]) == ("8g", True)
    limit = deployed("prefect.yaml", "full-train")["concurrency_limit"]
    assert limit == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_a_pool_holds_names_of_credentials_and_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.pools import HANDED_ON, docker_template

    for name in HANDED_ON:
        monkeypatch.setenv(name, "a secret")
    template = docker_template()
    assert template["variables"]["properties"]["env"]["default"]["KAGGLE_KEY"] == "{{ $KAGGLE_KEY }}"
    assert "a secret" not in str(template)
