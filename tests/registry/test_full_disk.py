"""A full disk is said, and leaves nothing half-written."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from a_run import model_folder, publish_run

from pcam_model.core.errors import DiskFullError
from pcam_model.registry.factory import open_store
from pcam_model.registry.pull import pull
from pcam_model.registry.runs import RunStore


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("may not mount a small file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_pull_onto_a_full_disk_ends_in_a_sentence_and_leaves_nothing_half(small_disk: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    publish_run(store, tmp_path, payload=os.urandom(2 << 20).hex().encode())
    with pytest.raises(DiskFullError, match=r"the disk is full .*free some room"):
        pull(store, "a", small_disk / "pulled")
    assert not (small_disk / "pulled").exists()
    assert not list(small_disk.rglob("*safetensors*"))


def test_a_store_on_a_full_disk_refuses_and_stays_whole(small_disk: Path, tmp_path: Path) -> None:
    run = RunStore(open_store(str(small_disk / "store")), "a")
    run.reserve_run({})
    with pytest.raises(DiskFullError, match="the disk is full"):
        run.commit("model", model_folder(tmp_path / "model", os.urandom(1 << 20).hex().encode()), {})
    assert run.step_record("model") is None
    assert not list(small_disk.rglob("*safetensors*"))
    assert not list(small_disk.rglob(".model*"))
