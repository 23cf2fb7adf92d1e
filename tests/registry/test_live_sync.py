"""What a running step has so far can be watched, and gone on with on another machine."""

import time
from pathlib import Path

import pytest
from a_run import safetensors

from pcam_model.core.files import write_atomic
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import Store, StoreUnavailable
from pcam_model.registry.live_sync import LiveSync, restore_checkpoint
from pcam_model.registry.runs import RunStore
from pcam_model.registry.workspace import Workspace


class Made(Record):
    found: str


def test_a_watcher_reads_whole_lines_and_the_last_checkpoint_can_be_had(store: Store, tmp_path: Path) -> None:
    run, folder = RunStore(store, "a"), tmp_path / "work"
    beside = LiveSync(run, "checkpoints/finetune", folder)
    for turn in (b"one", b"two", b"three"):
        write_atomic(folder / "latest.safetensors", safetensors(turn * 50))
        with (folder / "metrics.jsonl").open("ab") as file:
            file.write(b'{"turn": "%s"}\n{"half' % turn)
        beside.sync_now()
    assert store.read("runs/a/checkpoints/finetune/metrics.jsonl").endswith(b'{"turn": "three"}\n')
    live = [entry.key for entry in store.entries("runs/a/checkpoints/finetune/live/")]
    assert len(live) == 2
    assert live[-1].endswith("live.json")
    assert restore_checkpoint(run, "checkpoints/finetune", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/latest.safetensors").read_bytes() == safetensors(b"three" * 50)
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["latest.safetensors", "metrics.jsonl"]
    assert (tmp_path / "elsewhere/metrics.jsonl").read_bytes().count(b"\n") == 3
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert not restore_checkpoint(run, "checkpoints/frozen", tmp_path / "none")


def test_a_checkpoint_of_this_machine_is_not_replaced(store: Store, tmp_path: Path) -> None:
    run = RunStore(store, "a")
    write_atomic(tmp_path / "work" / "latest.safetensors", safetensors(b"old"))
    LiveSync(run, "finetune", tmp_path / "work").sync_now()
    write_atomic(tmp_path / "work" / "latest.safetensors", safetensors(b"newer"))
    assert not restore_checkpoint(run, "finetune", tmp_path / "work")
    assert (tmp_path / "work" / "latest.safetensors").read_bytes() == safetensors(b"newer")


def test_another_machine_goes_on_and_nothing_of_the_way_is_left(tmp_path: Path) -> None:
    place = Workspace(run="a", store=(tmp_path / "store").as_uri(), folder=str(tmp_path / "one"))
    store = place.run_store.store

    def killed(folder: Path) -> Made:
        write_atomic(folder / "latest.safetensors", safetensors(b"so far"))
        LiveSync(place.run_store, "finetune", folder).sync_now()
        raise KeyboardInterrupt

    def go_on(folder: Path) -> Made:
        found = (folder / "latest.safetensors").read_bytes()
        (folder / "latest.safetensors").replace(folder / "final.safetensors")
        return Made(found=found.decode("latin1"))

    with pytest.raises(KeyboardInterrupt):
        place.run_step("finetune", Made, killed, {})
    elsewhere = place.model_copy(update={"folder": str(tmp_path / "two")})
    assert elsewhere.run_step("finetune", Made, go_on, {}).found.endswith("so far")
    assert [entry.key for entry in store.entries("runs/a/")] == [
        "runs/a/finetune/final.safetensors",
        "runs/a/finetune/step.json",
    ]


def test_a_dead_store_is_said_once_and_does_not_stop_the_work(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no(*_: object) -> str:
        tried.append(1)
        raise StoreUnavailable("the store does not answer")

    tried: list[int] = []
    monkeypatch.setattr(type(folder_store), "upload", no)
    write_atomic(tmp_path / "work" / "latest.safetensors", safetensors(b"so far"))
    with LiveSync(RunStore(folder_store, "a"), "finetune", tmp_path / "work", interval_s=0.001):
        while len(tried) < 3:
            time.sleep(0.001)
    assert caplog.text.count("the store does not answer") == 1
