"""Refused writes are sentences with the folder, the reason and what moves the folder; other errors are not changed."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from unwritable import OTHER_USER, REASONS, ROOT, UNPRIVILEGED, unwritable

from pcam_model.core import optional_cache, users
from pcam_model.core.errors import DiskFullError, PcamError, UnwritableError
from pcam_model.core.locks import file_lock
from pcam_model.core.optional_cache import call_with_cache
from pcam_model.core.predictions_csv import write_predictions
from pcam_model.core.write_guard import make_temporary_dir, require_writable, write_guard

# What `require_writable` and a guarded write raise for each folder, as a user whom modes and owners concern.
PROGRAM = """
import json, sys
from pathlib import Path
from pcam_model.core.errors import UnwritableError
from pcam_model.core.write_guard import require_writable, write_guard
def write(folder):
    with write_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "x").write_bytes(bytes(1 << 17))
def message(function, folder):
    try:
        function(folder)
    except UnwritableError as error:
        return str(error)
print(json.dumps([[message(function, Path(name)) for function in (require_writable, write)] for name in sys.argv[1:]]))
"""


def test_each_reason_is_named_with_the_folder(tmp_path: Path) -> None:
    targets = {}
    with ExitStack() as stack:
        for number, reason in enumerate(REASONS):
            (tmp_path / str(number)).mkdir()
            try:
                target = stack.enter_context(unwritable(reason, tmp_path / str(number)))
            except pytest.skip.Exception:
                continue
            targets[reason] = target / "packs" if "shared" in reason else target
        done = subprocess.run(
            [*UNPRIVILEGED, sys.executable, "-c", PROGRAM, *map(str, targets.values())],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PCAM_CACHE": str(tmp_path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert len(targets) >= 4
    for (reason, target), messages in zip(targets.items(), json.loads(done.stdout), strict=True):
        for message in messages:
            assert message, reason
            assert message.startswith(str(target))
            assert REASONS[reason] in message
            assert "set PCAM_CACHE to a folder" in message
            assert "\n" not in message


def test_errors_of_other_files_are_not_changed(tmp_path: Path) -> None:
    elsewhere = PermissionError(errno.EACCES, "denied", "/elsewhere/file")
    with pytest.raises(PermissionError), write_guard(tmp_path):
        raise elsewhere
    with pytest.raises(FileNotFoundError), write_guard(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "no", str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EFBIG, "File too large"),
        (errno.EROFS, "its file system is read-only"),
        (errno.ENAMETOOLONG, "File name too long"),
    ],
)
def test_what_a_file_system_cannot_hold_is_named(number: int, expected: str, tmp_path: Path) -> None:
    name = None if number in (errno.EFBIG, errno.EROFS) else str(tmp_path / "file")  # a write names no file
    with pytest.raises(UnwritableError, match=expected), write_guard(tmp_path):
        raise OSError(number, os.strerror(number), name)


def test_a_disk_without_inodes_is_full_although_bytes_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Status:
        f_files, f_favail = 1000, 0

    monkeypatch.setattr("pcam_model.core.write_guard.os.statvfs", lambda _: Status)
    with pytest.raises(DiskFullError, match="no inodes left"), write_guard(tmp_path):
        raise OSError(errno.ENOSPC, "no space")


def test_no_folder_for_temporary_files_names_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(UnwritableError, match="set TMPDIR to one that can"):
        make_temporary_dir("x")


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UnwritableError, match=r"its file system has no locks"), file_lock(tmp_path / "lock"):
        pass


def test_a_table_of_another_user_in_a_sticky_folder_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.csv").touch()
    tmp_path.chmod(0o1777)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    with (
        pytest.raises(UnwritableError, match="name a folder with --out"),
        write_predictions(tmp_path / "out.csv", "--out"),
    ):
        pytest.fail("the work has begun")


def test_a_link_is_followed_and_a_device_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "out.csv").touch()
    (tmp_path / "out.csv").symlink_to("real/out.csv")
    with write_predictions(tmp_path / "out.csv"):
        pass
    assert (tmp_path / "out.csv").is_symlink()
    assert (tmp_path / "real" / "out.csv").read_text().startswith("id,")
    with pytest.raises(PcamError, match="a folder or a device"), write_predictions(Path("/dev/null")):
        pass
    assert Path("/dev/null").is_char_device()


def test_work_goes_on_with_a_temporary_cache_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(optional_cache, "make_temporary_dir", lambda _: tmp_path)
    monkeypatch.setattr(optional_cache.atexit, "register", lambda *_, **__: None)
    optional_cache._temporary_cache.cache_clear()

    def work(folder: Path) -> Path:
        require_writable(folder)
        return folder

    assert [call_with_cache(work) for _ in range(2)] == [tmp_path, tmp_path]
    assert len(caplog.records) == 1
    assert "Going on with a temporary cache" in caplog.text
    with pytest.raises(UnwritableError, match="another folder"):
        call_with_cache(lambda _: require_writable(Path("/proc/none")))  # not the cache's fault
    optional_cache._temporary_cache.cache_clear()


def test_a_user_whom_the_system_does_not_know_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: OTHER_USER)
    assert users.login_name() == f"uid {OTHER_USER}"
