"""A step is done once, and a store that is away does not stop the work."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from a_run import model_folder

from pcam_model.core.errors import BusyError, ConfigError, ModelError
from pcam_model.core.files import atomic_file
from pcam_model.core.schema import Record
from pcam_model.registry import runs
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.factory import open_store
from pcam_model.registry.manifest import read_manifest
from pcam_model.registry.pull import pull
from pcam_model.registry.retention import begin_deletion, mark_run
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


def test_what_the_store_has_lost_in_mid_run_is_uploaded_again(place: Workspace) -> None:
    store = open_store(place.store)
    place.reserve({"seed": 1})
    for step in ("split", "model"):
        place.run_step(step, Made, make, {})
    for entry in list(store.entries("runs/a/")):
        if "/model/" not in entry.key:
            store.delete(entry.key)
    published = place.publish(timeout_s=5)
    files = read_manifest(store, "a")[0].files
    assert {"config.json", "split/step.json", "model/step.json"} <= set(files)
    assert place.publish(timeout_s=5) == published
    assert not list(store.entries("retention/"))


def test_a_step_that_was_fetched_is_uploaded_again_too(place: Workspace, tmp_path: Path) -> None:
    store = open_store(place.store)
    place.run_step("model", Made, make, {})
    other = place.model_copy(update={"folder": str(tmp_path / "work" / "other")})
    other.run_step("model", Made, never, {})
    for entry in list(store.entries("runs/a/")):
        store.delete(entry.key)
    other.publish(timeout_s=5)
    assert "model/step.json" in read_manifest(store, "a")[0].files


def test_a_run_that_is_being_deleted_is_not_published(place: Workspace) -> None:
    store = open_store(place.store)
    place.run_step("model", Made, make, {})
    etag = mark_run(store, "a")
    assert etag is not None
    assert begin_deletion(store, "a", etag)
    with pytest.raises(ModelError, match="'a' is being deleted by `pcam prune`"):
        place.publish(timeout_s=5)
    assert store.stat("runs/a/manifest.json") is None


def test_a_killed_writers_temporary_files_are_removed_at_the_next_start(place: Workspace, tmp_path: Path) -> None:
    place.reserve({"seed": 1})
    folder = tmp_path / "store" / "runs" / "a"
    code = """
import os, signal, sys
from pathlib import Path
from pcam_model.core.files import atomic_file
with atomic_file(Path(sys.argv[1])) as part:
    part.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(folder / "final.safetensors")], check=False)
    (left,) = [path for path in folder.iterdir() if path.name.startswith(".final.safetensors.")]
    with atomic_file(folder / "mine") as part:
        with place.held():
            assert part.exists()
        assert not left.exists()
