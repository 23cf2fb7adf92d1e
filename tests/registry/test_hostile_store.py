"""A store in a folder that someone else has written: nothing outside it is read, written or deleted, nothing hangs."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from a_run import publish_run

from pcam_model.core.errors import PcamError, StoreError, UnwritableError
from pcam_model.registry import audit, pruning
from pcam_model.registry.backends import base, directory
from pcam_model.registry.backends.base import Store
from pcam_model.registry.channels import list_channels, promote
from pcam_model.registry.factory import open_store
from pcam_model.registry.pull import pull
from pcam_model.registry.runs import list_runs

OLD = 1e9  # seconds since 1970


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody's, with files as a run has them."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("manifest.json", "thesis.txt"):
        (folder / name).write_text("precious")
        os.utime(folder / name, (OLD, OLD))
    return folder


def untouched(folder: Path) -> bool:
    return sorted(path.name for path in folder.iterdir()) == ["manifest.json", "thesis.txt"] and all(
        path.read_text() == "precious" for path in folder.iterdir()
    )


def root_of(store: Store) -> Path:
    assert isinstance(store, directory.DirectoryStore)
    store.root.mkdir(exist_ok=True)
    return store.root


def test_prune_deletes_nothing_outside_the_store(
    folder_store: Store, outside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = root_of(folder_store)
    (root / "runs").mkdir()
    (root / "runs" / "old").symlink_to(outside)
    folder_store.write("runs/mine/config.json", b"{}")
    (root / "runs" / "mine" / "model").symlink_to(outside)
    os.utime(root / "runs" / "mine" / "config.json", (OLD, OLD))
    candidates = pruning.prune_candidates(folder_store)
    assert [each.name for each in candidates] == ["mine"]
    for each in candidates:
        pruning.prune(folder_store, each)
    assert untouched(outside)
    assert "old is a symbolic link" in caplog.text
    assert "mine/model is a symbolic link" in caplog.text


@pytest.mark.parametrize("key", ["runs/old/manifest.json", "runs/old/new.json", "runs/old"])
def test_no_method_of_a_store_follows_a_link(folder_store: Store, outside: Path, tmp_path: Path, key: str) -> None:
    root = root_of(folder_store)
    (root / "runs").mkdir()
    (root / "runs" / "old").symlink_to(outside)
    local = tmp_path / "file"
    local.write_bytes(b"mine")
    calls: list[Callable[[], object]] = [
        lambda: folder_store.read(key),
        lambda: list(folder_store.blocks(key)),
        lambda: folder_store.stat(key),
        lambda: folder_store.write(key, b"mine"),
        lambda: folder_store.upload(key, local),
        lambda: folder_store.matches(key, local),
        lambda: folder_store.download(key, tmp_path / "copy"),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="old is a symbolic link, and a store has plain files and folders only"):
            call()
    if key != "runs/old":
        with pytest.raises(StoreError, match="symbolic link"):
            folder_store.delete(key)
    assert list(folder_store.entries()) == []
    assert list(folder_store.folders("runs/")) == []
    assert untouched(outside)


@pytest.mark.parametrize("name", ["channels", "channels/champion.json", "history", ".lock"])
@pytest.mark.parametrize("dangling", [False, True])
def test_promote_writes_nothing_outside_the_store(
    folder_store: Store, outside: Path, tmp_path: Path, name: str, dangling: bool
) -> None:
    publish_run(folder_store, tmp_path / "runs")
    root = root_of(folder_store)
    (root / ".lock").unlink()
    target = outside / ("new" if dangling else "thesis.txt")
    if name in ("channels", "history"):
        target = outside / "folder" if dangling else outside
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).symlink_to(target)
    if name == "history":  # which a first promotion does not write
        with pytest.raises(StoreError, match="symbolic link"):
            folder_store.write("history/champion/page.json", b"{}")
    else:
        with pytest.raises((StoreError, UnwritableError), match="is a symbolic link"):
            promote(folder_store, "a")
    assert untouched(outside)


def test_a_pipe_in_place_of_a_record_is_a_sentence_at_once(folder_store: Store, tmp_path: Path) -> None:
    publish_run(folder_store, tmp_path / "runs")
    root = root_of(folder_store)
    (root / "channels").mkdir()
    os.mkfifo(root / "channels" / "stable.json")
    start = time.monotonic()
    with pytest.raises(StoreError, match=r"stable\.json is a pipe"):
        promote(folder_store, "a", "stable")
    assert list_channels(folder_store) == []
    (root / "runs" / "a" / "manifest.json").unlink()
    os.mkfifo(root / "runs" / "a" / "manifest.json")
    with pytest.raises(PcamError, match=r"manifest\.json is a pipe, and a store has"):
        pull(folder_store, "a", tmp_path / "pulled")
    assert any("manifest.json is a pipe" in finding.problem for finding in audit.verify(folder_store))
    assert time.monotonic() - start < 20


def test_a_store_may_be_named_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = open_store(str(tmp_path / "store"))
    publish_run(store, tmp_path / "runs")
    assert [run.name for run in list_runs(store)] == ["a"]


def test_a_record_that_is_too_large_is_not_read(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store.write("runs/a/manifest.json", b"x" * 1001)
    with monkeypatch.context() as limit:
        for module in (base, sys.modules[type(store).__module__]):
            limit.setattr(module, "MAX_READ_BYTES", 1000)
        with pytest.raises(StoreError, match=r"manifest\.json has more than 1,000 bytes, expected a small record"):
            pull(store, "a", tmp_path / "pulled")
        store.write("runs/a/status.json", b"x" * 1000)
        assert len(store.read("runs/a/status.json")) == 1000
    assert sum(map(len, store.blocks("runs/a/manifest.json"))) == 1001


def test_verify_reads_no_further_than_an_object_should_be(folder_store: Store, tmp_path: Path) -> None:
    publish_run(folder_store, tmp_path / "runs")
    path = root_of(folder_store) / "runs" / "a" / "model" / "model.json"
    with path.open("ab") as file:
        file.truncate(1 << 40)  # sparse
    assert any(finding.problem.startswith("more than its") for finding in audit.verify(folder_store))
