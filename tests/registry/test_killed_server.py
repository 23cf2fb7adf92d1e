"""A server that is killed in the middle of an upload and comes back: the publish completes."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from a_run import model_folder

from pcam_model.core.schema import Record
from pcam_model.registry.audit import verify
from pcam_model.registry.factory import open_store
from pcam_model.registry.pull import pull, verify_folder
from pcam_model.registry.workspace import Workspace

START = os.environ.get("PCAM_TEST_S3_START", "").splitlines()
AWAY = 20.0  # seconds


class Made(Record):
    number: int


@pytest.mark.s3
@pytest.mark.skipif(not START, reason="the S3 server is not ours to kill: run make test-s3")
def test_a_server_that_is_killed_and_comes_back_takes_the_whole_run(real_settings: str, tmp_path: Path) -> None:
    place = Workspace(run="killed", store=real_settings, folder=str(tmp_path / "work"))

    def make(folder: Path) -> Made:
        model_folder(folder, os.urandom(200 << 20))
        threading.Thread(target=kill_and_restart, name="killer").start()
        return Made(number=1)

    killed, back = threading.Event(), threading.Event()

    def kill_and_restart() -> None:
        time.sleep(1.0)  # the upload is under way
        pid = int((Path(START[2]) / "run" / "client.rgw.a.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        killed.set()
        time.sleep(AWAY)
        subprocess.run(START, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        back.set()

    place.run_step("model", Made, make, {})
    published = place.publish(timeout_s=240.0)
    assert killed.is_set()
    assert back.wait(60)
    store = open_store(real_settings)
    assert pull(store, "killed", tmp_path / "pulled") == published
    assert list(verify(store)) == []
    assert verify_folder(tmp_path / "pulled").run == "killed"
