"""A run that ends badly says so in the store, and no longer once it goes on."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, runtime
from prefect.client.orchestration import get_client

from pcam_model.config_reader import read_config
from pcam_model.core.errors import SourceError
from pcam_model.registry.backends.base import Store
from pcam_model.registry.describe import describe_run
from pcam_model.registry.factory import open_store
from pcam_model.registry.run_status import clear_status, read_status, write_status
from pcam_model.registry.runs import RunStore
from tasks import publishing
from tasks.run_status import STATUS_HOOKS, default_run_name

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path.as_uri())
    RunStore(store, "begun").reserve_run({"seed": 1})
    return store


def test_only_a_run_that_has_begun_and_is_not_published_has_an_ending(store: Store, tmp_path: Path) -> None:
    assert not write_status(store, "unknown", "Failed", "why")
    assert write_status(store, "begun", "Failed", "why", "job")
    ending = read_status(store, "begun")
    assert ending is not None
    assert (ending.state, ending.message, ending.flow_run_id) == ("Failed", "why", "job")
    assert describe_run(store.uri, "begun")["status"]["message"] == "why"
    clear_status(store, "begun")
    assert read_status(store, "begun") is None
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "file").write_text("x")
    RunStore(store, "begun").publish(files={"file": tmp_path / "work" / "file"})
    assert not write_status(store, "begun", "Failed", "why")
    assert read_status(store, "begun") is None


@pytest.mark.parametrize(
    ("fault", "state"), [(SourceError("no such file"), "Failed"), (KeyboardInterrupt(), "Crashed")]
)
def test_a_flow_leaves_its_state(prefect: str, store: Store, fault: BaseException, state: str) -> None:
    @flow(name="training", **STATUS_HOOKS)
    def training(config: dict[str, Any]) -> None:
        raise fault

    @flow(name="retraining", **STATUS_HOOKS)
    def retraining(config: dict[str, Any], promotion: dict[str, Any]) -> None:
        training({**config, "run": "begun"})

    with pytest.raises(type(fault)):
        retraining({"store": {"uri": store.uri}}, {})
    ending = read_status(store, "begun")
    assert ending is not None
    assert ending.state == state
    assert ending.flow_run_id


def test_a_run_that_goes_on_has_no_ending(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    config = read_config(None, [f"store.uri={store.uri}", "run=again", "model.weights=none"])
    RunStore(store, "again").reserve_run(config.result_keys())
    write_status(store, "again", "Crashed", "killed")
    publishing.begin_run(config)
    assert read_status(store, "again") is None


def test_a_generated_name_is_a_run_name_also_once_the_flow_run_is_renamed_to_it() -> None:
    assert default_run_name("Brave Ox", "abcdef") == "brave-ox-abcd"
    assert default_run_name("brave-ox-abcd", "abcdef") == "brave-ox-abcd"


@pytest.mark.parametrize("given", ["", "first"])
def test_the_flow_run_has_the_name_of_its_run(
    prefect: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    uri = (tmp_path / "store").as_uri()

    @flow(name="named")
    def named() -> tuple[str, str]:
        config = read_config(None, [f"store.uri={uri}", f"run={given}", "model.weights=none"])
        return str(runtime.flow_run.id), publishing.begin_run(config).run

    flow_run_id, run = named()
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(UUID(flow_run_id)).name == run
    assert run == (given or default_run_name(run, flow_run_id))
