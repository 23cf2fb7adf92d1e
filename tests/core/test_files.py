"""Atomic writes, digests and full disks."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pcam_model.core.atomic_dir import build_dir
from pcam_model.core.errors import DiskFullError
from pcam_model.core.files import atomic_file, md5, sha256, write_atomic
from pcam_model.core.write_guard import require_disk_space, write_guard


def test_a_file_is_replaced_with_the_rights_of_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, b"first")
    assert write_atomic(path, b"second").read_bytes() == b"second"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")

    def fail() -> None:
        with atomic_file(tmp_path / "file") as part:
            part.write_bytes(b"half")
            raise OSError("interrupted")

    with pytest.raises(OSError, match="interrupted"):
        fail()
    assert (tmp_path / "file").read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


KILLED = """
import os, sys
from pathlib import Path
from pcam_model.core.files import atomic_file
with atomic_file(Path(sys.argv[1])) as part:
    part.write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_goes_with_the_next_write_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a[1].html"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    write_atomic(tmp_path / "b.html", b"another")
    assert left.exists()
    with atomic_file(path) as mine, atomic_file(path) as of_another_thread:
        assert not left.exists()
        assert mine.exists()
        of_another_thread.write_bytes(b"whole")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a[1].html", "b.html"]


def test_digests_are_those_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
    assert md5(tmp_path / "file") == hashlib.md5(b"content").hexdigest()


def test_a_full_disk_is_named_and_other_faults_are_not_changed(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(DiskFullError, match=rf"{tmp_path}: the disk is full"), write_guard(tmp_path):
        raise full
    with pytest.raises(PermissionError), write_guard(tmp_path):
        raise PermissionError(errno.EACCES, "denied")
    require_disk_space(tmp_path, 1, "a pack")
    with pytest.raises(DiskFullError, match=r"a pack takes 1,000,000,000,000\.0 MB"):
        require_disk_space(tmp_path, 10**18, "a pack")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is flushed to the disk, in order."""
    calls, fsync = [], os.fsync

    def record(handle: int) -> None:
        calls.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    return calls


def test_a_rename_is_flushed_to_the_disk_once(tmp_path: Path, synced: list[Path]) -> None:
    write_atomic(tmp_path / "file", b"content")
    assert [path.name.split(".")[1] if path.name[0] == "." else path.name for path in synced] == ["file", tmp_path.name]
    with atomic_file(tmp_path / "other", durable=False) as part:
        part.write_bytes(b"content")
    assert len(synced) == 2
    with build_dir(tmp_path / "pack", lambda _: False):
        pass
    assert synced[2:] == [tmp_path / ".pack.part", tmp_path]


def test_a_file_system_that_cannot_flush_a_folder_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, "a file system of a network")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    assert write_atomic(tmp_path / "file", b"content").read_bytes() == b"content"
