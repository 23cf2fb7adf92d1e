"""A Prefect server as a child process: started on a free port, used by this process, stopped at the end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import prefect
from prefect.context import refresh_global_settings_context
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import get_current_settings

from pcam_model.core.errors import PcamError
from tasks.proxies import loopback_variables

START_TIMEOUT_S, STOP_TIMEOUT_S = 180, 10
OF_ANOTHER_SERVER = (
    *("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"),
    *("PREFECT_DEFAULT_RESULT_STORAGE_BLOCK", "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK"),
)
RESULTS_IN_PROCESS = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false", "PREFECT_RESULTS_DEFAULT_SERIALIZER": "pickle"}
NO_ANALYTICS = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
EPHEMERAL = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
APP = "prefect.server.api.server:create_app"
# The kernel ends the server with its parent, also where that is killed.
PROGRAM = """
import ctypes, os, runpy, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit("the command has ended")
runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
"""


@contextmanager
def running_server(home: Path, log: Path, ephemeral: bool = False) -> Iterator[str]:
    """Run a Prefect server on a free port, and have this process use it; the address of its API.

    None of the user's settings, databases or proxies reaches it, nor Ctrl-C in a terminal. It ends with this process.

    Args:
        home: Prefect's home folder, with its database.
        log: the file of its output.
        ephemeral: leave out the web page and the services, as the scheduler.

    Raises:
        PcamError: it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    server = _start(home, log, url, port, EPHEMERAL if ephemeral else {})
    try:
        _wait_until_healthy(server, url, log)
        with client_settings(url, home):
            try:
                yield url
            finally:
                _send_queued()
    finally:
        _stop(server)


@contextmanager
def client_settings(url: str, home: Path) -> Iterator[None]:
    """Have this process, its threads and its children use the server at `url`, whose home is `home`."""
    before = dict(os.environ)
    profiles = get_current_settings().profiles_path
    for name in OF_ANOTHER_SERVER:
        os.environ.pop(name, None)
    os.environ |= NO_ANALYTICS | RESULTS_IN_PROCESS | loopback_variables()
    os.environ |= {"PREFECT_API_URL": url, "PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(profiles)}
    refresh_global_settings_context()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        refresh_global_settings_context()


def _start(home: Path, log: Path, url: str, port: int, variables: dict[str, str]) -> "subprocess.Popen[bytes]":
    home.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    user = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    ours = NO_ANALYTICS | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,  # which its page asks
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite on a busy machine
        "PREFECT__SERVER_FINAL": "1",
    }
    app = ["--app-dir", str(prefect.__module_path__.parent), "--factory", APP]
    address = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(os.getpid()), *app, *address],
            env=user | ours | variables,
            cwd=home,  # no .env or prefect.toml of the user's lies there
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in a terminal reaches a whole process group
        )


def _wait_until_healthy(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    with httpx.Client(trust_env=False) as client:
        while True:
            with suppress(httpx.TransportError):
                if client.get(f"{url}/health").status_code == 200:
                    return
            if server.poll() is not None or time.monotonic() > end:
                lines = log.read_text(errors="replace").strip().splitlines()
                raise PcamError(
                    f"a Prefect server that logs to {log} does not start ({lines[-1] if lines else 'no answer'}); see "
                    "that this folder can be written, or set PREFECT_API_URL to a server that runs"
                )
            time.sleep(0.1)


def _send_queued() -> None:
    """Send the log lines and events that Prefect has queued."""
    APILogWorker.drain_all(timeout=STOP_TIMEOUT_S, at_exit=False)
    EventsWorker.drain_all(timeout=STOP_TIMEOUT_S, at_exit=False)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        server.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_TIMEOUT_S)
            return
