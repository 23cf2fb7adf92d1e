"""What the deployment files say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pcam_model.config_reader import preset_parameters, read_config

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"


def deployed(file: str, name: str) -> dict[str, Any]:
    found = yaml.safe_load((DEPLOYMENTS / file).read_text())["deployments"]
    return {one["name"]: one for one in found}[name]


@pytest.mark.parametrize(("name", "preset"), [("smoke", "sample"), ("full-train", "recipe"), ("retrain", "recipe")])
def test_a_deployment_names_a_preset_and_a_build_step_resolves_its_configuration(name: str, preset: str) -> None:
    parameters = deployed("prefect.yaml", name)["parameters"]
    assert (parameters["preset"], parameters["config"]) == (preset, f"{{{{ {preset}.config }}}}")
    step = {"pcam_model.config_reader.preset_parameters": {"id": preset, "name": preset}}
    assert step in yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["build"]
    assert preset_parameters(preset)["config"] == read_config(preset=preset).model_dump(mode="json")


def test_the_gpu_container_asks_for_all_gpus_and_shared_memory_and_one_run_at_a_time() -> None:
    container = deployed("prefect.yaml", "full-train")["work_pool"]["job_variables"]["container_create_kwargs"]
    assert container["device_requests"] == [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]
    assert (container["shm_size"], container["read_only"]) == ("8g", True)
    limit = deployed("prefect.yaml", "full-train")["concurrency_limit"]
    assert limit == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_a_pool_holds_names_of_credentials_and_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.pools import FORWARDED_VARIABLES, docker_template

    for name in FORWARDED_VARIABLES:
        monkeypatch.setenv(name, "a secret")
    template = docker_template()
    assert template["variables"]["properties"]["env"]["default"]["KAGGLE_KEY"] == "{{ $KAGGLE_KEY }}"
    assert "a secret" not in str(template)
