"""A real Prefect server that the tests of a session share, also over the processes of pytest-xdist."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import psutil
import pytest
from filelock import FileLock

START_TIMEOUT_S, STOP_TIMEOUT_S = 180, 20


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the API of a real server, which the last process of the session stops."""
    home = tmp_path_factory.getbasetemp()
    with shared_server(home.parent if "PYTEST_XDIST_WORKER" in os.environ else home) as url:
        yield url


@pytest.fixture(scope="module")
def prefect(server_url: str) -> Iterator[str]:
    """Flows of this process run on the real server; its address."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: server_url}):
        yield server_url
        drain()
    gc.collect()  # Prefect's client leaves sockets to the garbage collector; they go while their warnings are waived


def drain() -> None:
    """Send what Prefect has queued: log lines and events."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=STOP_TIMEOUT_S, at_exit=False)
    EventsWorker.drain_all(timeout=STOP_TIMEOUT_S, at_exit=False)


@contextmanager
def shared_server(folder: Path) -> Iterator[str]:
    """A server that is started by its first user and stopped by its last one; a user that was killed does not count."""
    users, record = folder / "prefect-users", folder / "prefect-server.json"
    users.mkdir(parents=True, exist_ok=True)
    mine = users / str(os.getpid())
    with FileLock(folder / "prefect-server.lock"):
        mine.touch()
        if not record.exists() or not psutil.pid_exists(json.loads(record.read_text())["pid"]):
            record.write_text(json.dumps(start_server(folder)))
        server = json.loads(record.read_text())
    try:
        yield server["url"]
    finally:
        with FileLock(folder / "prefect-server.lock"):
            mine.unlink()
            if not any(psutil.pid_exists(int(user.name)) for user in users.iterdir()):
                record.unlink()
                stop_server(server["pid"])


def start_server(folder: Path) -> dict[str, object]:
    """Start a server with its database in `folder`; its address and process, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    ours = {
        "PREFECT_HOME": str(folder / "prefect-home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start", "--host", "127.0.0.1"]
    with (folder / "prefect-server.log").open("ab") as log:
        server = subprocess.Popen([*command, "--port", str(port)], env=clean_environment() | ours, cwd=folder,
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip
    url, end = f"http://127.0.0.1:{port}/api", time.monotonic() + START_TIMEOUT_S
    while not is_healthy(url):
        assert server.poll() is None, (folder / "prefect-server.log").read_text()[-3000:]
        assert time.monotonic() < end, (folder / "prefect-server.log").read_text()[-3000:]
        time.sleep(0.2)
    return {"url": url, "pid": server.pid}


def stop_server(pid: int) -> None:
    """End the server and its children."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        processes = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        for left in psutil.wait_procs(processes, STOP_TIMEOUT_S)[1]:
            left.kill()


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of Prefect and pcam."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PCAM_"))}


def is_healthy(url: str) -> bool:
    """Whether a Prefect server answers there."""
    with suppress(OSError, ValueError), build_opener(ProxyHandler({})).open(f"{url}/health", timeout=3) as response:
        return json.load(response) is True
    return False
