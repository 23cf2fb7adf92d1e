"""A step is done once, and a store that is away does not stop the work."""

import os
import socket
from pathlib import Path

import pytest
from a_run import model_folder

from pcam_model.core.errors import BusyError, ConfigError, ModelError
from pcam_model.core.schema import Record
from pcam_model.registry import runs
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.factory import open_store
from pcam_model.registry.manifest import read_manifest
from pcam_model.registry.pull import pull
from pcam_model.registry.workspace import Workspace


class Made(Record):
    folder: str
    number: int


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(run="a", store=(tmp_path / "store").as_uri(), folder=str(tmp_path / "work" / "a"))


def make(folder: Path) -> Made:
    model_folder(folder)
    return Made(folder=str(folder), number=3)


def never(folder: Path) -> Made:
    raise AssertionError("this step is done")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    def no(*_: object, **__: object) -> object:
        raise StoreUnavailable("the store does not answer")

    for name in ("step_record", "commit", "fetch", "publish"):
        monkeypatch.setattr(runs.RunStore, name, no)
    return monkeypatch


def test_a_step_is_made_once_and_known_on_another_machine(place: Workspace, tmp_path: Path) -> None:
    first = place.run_step("model", Made, make, {"seed": 1})
    assert place.run_step("model", Made, never, {"seed": 1}) == first
    place.cleanup()
    elsewhere = place.model_copy(update={"folder": str(tmp_path / "elsewhere")})
    assert elsewhere.run_step("model", Made, never, {"seed": 1}) == Made(
        folder=str(tmp_path / "elsewhere/model"), number=3
    )
    with pytest.raises(ConfigError, match="from seed 1, which is now 2"):
        elsewhere.run_step("model", Made, never, {"seed": 2})


def test_the_work_goes_on_while_the_store_is_away_and_is_published_when_it_is_back(
    place: Workspace, away: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = place.run_step("model", Made, make, {"seed": 1})
    assert place.run_step("model", Made, never, {"seed": 1}) == first
    (Path(place.folder) / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(StoreUnavailable, match="`pcam publish a` publishes it"):
        place.publish(timeout_s=0.0)
    assert "Continuing with what this machine has of run a" in caplog.text
    assert (Path(place.folder) / "model" / "model.json").exists()
    away.undo()
    published = place.publish(timeout_s=0.0)
    manifest, same = read_manifest(open_store(place.store), "a")
    assert same == published
    assert sorted(manifest.files) == ["metrics.jsonl", "model/model.json", "model/model.safetensors", "model/step.json"]
    pull(open_store(place.store), "a", tmp_path / "pulled")
    assert place.publish(timeout_s=0.0) == published


def test_a_second_process_is_told_who_works_on_the_run(place: Workspace) -> None:
    with place.held():
        said = rf"run 'a' is being worked on by process {os.getpid()} of .* on {socket.gethostname()}, since "
        with pytest.raises(BusyError, match=said), place.held():
            pass
    with place.held():
        pass
    assert not list(Path(place.folder).parent.iterdir())


@pytest.mark.parametrize("damage", [b"", b"garbage", b"[]", b"{}", b'{"record": {"result": {}}, "files": {}}'])
def test_a_step_whose_record_is_damaged_is_done_again_aloud(
    place: Workspace, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first = place.run_step("model", Made, make, {"seed": 1})
    store = place.run_store.store
    whole = store.read("runs/a/model/step.json")
    store.write("runs/a/model/step.json", damage)
    with caplog.at_level("WARNING", "pcam_model"):
        assert place.run_step("model", Made, make, {"seed": 1}) == first
    assert "is malformed" in caplog.text
    assert "The step model is done again" in caplog.text
    assert store.read("runs/a/model/step.json") == whole


def test_a_damaged_record_of_a_published_run_is_a_sentence(place: Workspace) -> None:
    place.run_step("model", Made, make, {"seed": 1})
    place.publish()
    size = len(place.run_store.store.read("runs/a/model/step.json"))
    place.run_store.store.write("runs/a/model/step.json", b"x" * size)
    with pytest.raises(ModelError, match=r"step\.json is malformed"):
        place.run_step("model", Made, never, {"seed": 1})


def test_a_damaged_pending_record_is_done_again(place: Workspace, away: pytest.MonkeyPatch) -> None:
    first = place.run_step("model", Made, make, {"seed": 1})
    (place.step_dir("model") / ".step.json").write_bytes(b"{")
    assert place.run_step("model", Made, make, {"seed": 1}) == first
