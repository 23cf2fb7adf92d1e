"""File locks between processes."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pcam_model.core.errors import BusyError
from pcam_model.core.locks import file_lock

HOLDER = """
import sys
import threading
from pathlib import Path
from pcam_model.core.locks import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_waited_for_no_longer_than_the_timeout_and_a_lock_ends_with_its_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / ".lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="another process is at work in"), file_lock(path, timeout=0.05):
            raise AssertionError("the lock was given twice")
        holder.kill()
    with file_lock(path, timeout=10):
        assert path.exists()


def test_a_lock_is_given_back_when_the_block_raises(tmp_path: Path) -> None:
    def fail() -> None:
        with file_lock(tmp_path / ".lock"):
            raise ValueError("in the block")

    with pytest.raises(ValueError, match="in the block"):
        fail()
    with file_lock(tmp_path / ".lock", timeout=0):
        assert (tmp_path / ".lock").exists()


def test_a_lock_file_that_is_removed_still_excludes_those_who_wait_for_it(tmp_path: Path) -> None:
    inside, most = [0], [0]
    gate = threading.Barrier(8)

    def work() -> None:
        gate.wait()
        for _ in range(10):
            with file_lock(tmp_path / ".lock", remove=True):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert list(tmp_path.iterdir()) == []
