"""The Prefect server that a command's flows use: the user's, once it is checked, or a temporary one of the command."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import prefect
from prefect.client.orchestration import get_client
from prefect.context import SettingsContext, refresh_global_settings_context
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from pcam_model.core.errors import PcamError
from tasks.proxies import loopback_variables

CHECK_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S = 10, 180, 10
PROXY_CODES = (407, 502, 503, 504)  # which a proxy answers for a server that it does not reach
CREDENTIALS = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")  # of another server than the temporary one
# The kernel ends the server with the command, also where that is killed.
SERVER_PROGRAM = """
import ctypes, os, runpy, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit("the command has ended")
runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
"""


class ApiProblem(NamedTuple):
    """Why an address cannot be used as Prefect's API."""

    found: str
    remedy: str


@contextmanager
def usable_server() -> Iterator[str]:
    """The address of the API that this process's flows use inside: the user's, else a temporary server's.

    Raises:
        PcamError: the server that the user's settings name cannot be used, or no temporary one starts.
    """
    url = get_current_settings().api.url
    if url:
        check_api(url)
        yield url
        return
    with temporary_server() as url:
        yield url


def check_api(url: str) -> None:
    """Raise PcamError where an address is dead, or is not the API of a Prefect server that lets us in."""
    problem = find_problem(url)
    if problem:
        raise PcamError(
            f"Prefect's API at {url} ({origin()}) {problem.found}, expected a Prefect server that lets us in; "
            f"{problem.remedy}"
        )


def find_problem(url: str) -> ApiProblem | None:
    """Ask an address for work pools, once; None where it answers as a Prefect server that lets us in."""
    settings = temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0})
    try:
        with settings, get_client(httpx_settings={"timeout": CHECK_TIMEOUT_S}, sync_client=True) as client:
            client.read_work_pools(limit=1)
    except httpx.HTTPStatusError as error:
        return _explain_status(url, error.response.status_code)
    except (httpx.TransportError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return _explain_proxy(url, f"does not answer ({reason})") or ApiProblem(
            f"does not answer ({reason})",
            f"start that server, or remove the address ({origin()}) and a local server is started",
        )
    except (httpx.HTTPError, ValueError):  # a page, or an address that is none
        return ApiProblem("does not answer as Prefect's API does", "see that the address is right and ends in /api")
    return None


def _explain_status(url: str, code: int) -> ApiProblem:
    if code in (401, 403):
        return ApiProblem(f"answers {code}", "set PREFECT_API_AUTH_STRING=user:password or PREFECT_API_KEY")
    if code in PROXY_CODES and (problem := _explain_proxy(url, f"answers {code}")):
        return problem
    if code >= 500:
        return ApiProblem(f"answers {code}", "read that server's log, or try again later")
    return ApiProblem(f"answers {code}", "see that the address is right and ends in /api")


def _explain_proxy(url: str, found: str) -> ApiProblem | None:
    """The problem where a proxy stands between; None where none does."""
    parts = urllib.parse.urlsplit(url)
    host, proxy = parts.hostname or "", urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    variable = f"{parts.scheme.upper()}_PROXY"
    remedy = f"add {host} to NO_PROXY, or correct {variable}"
    return ApiProblem(f"{found} through the proxy of {variable}", remedy)


def origin() -> str:
    """Where the address of Prefect's API is set."""
    if os.environ.get("PREFECT_API_URL"):
        return "from PREFECT_API_URL"
    context = SettingsContext.get()
    if context and PREFECT_API_URL in context.profile.settings:
        return f"from Prefect's profile {context.profile.name!r}"
    return "from .env, prefect.toml or pyproject.toml of this folder"


@contextmanager
def temporary_server() -> Iterator[str]:
    """A Prefect server with its own home, database and process group, stopped at the end; its API's address.

    None of the user's settings, databases or proxies reaches it.

    Raises:
        PcamError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="pcam-prefect-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api"
        server = _start(home, port)
        try:
            _wait_until_healthy(server, url, home)
            with _client_settings(url, home):
                try:
                    yield url
                finally:
                    _send_queued()
        finally:
            _stop(server)


def _start(home: Path, port: int) -> "subprocess.Popen[bytes]":
    user = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    ours = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite on a busy machine
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    app = ["--app-dir", str(prefect.__module_path__.parent), "--factory", "prefect.server.api.server:create_app"]
    address = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    with (home / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", SERVER_PROGRAM, str(os.getpid()), *app, *address],
            env=user | ours,
            cwd=home,  # no .env or prefect.toml of the user's lies there
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in a terminal reaches a whole process group
        )


def _wait_until_healthy(server: "subprocess.Popen[bytes]", url: str, home: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    with httpx.Client(trust_env=False) as client:
        while True:
            with suppress(httpx.TransportError):
                if client.get(f"{url}/health").status_code == 200:
                    return
            if server.poll() is not None or time.monotonic() > end:
                lines = (home / "server.log").read_text(errors="replace").strip().splitlines()
                raise PcamError(
                    f"a temporary Prefect server in {home} does not start ({lines[-1] if lines else 'no answer'}); "
                    "see that TMPDIR can be written, or set PREFECT_API_URL to a server that runs"
                )
            time.sleep(0.1)


@contextmanager
def _client_settings(url: str, home: Path) -> Iterator[None]:
    """Have this process, its threads and its children use the server at `url`."""
    before = dict(os.environ)
    profiles = get_current_settings().profiles_path
    for name in CREDENTIALS:
        os.environ.pop(name, None)
    os.environ |= loopback_variables()
    os.environ |= {"PREFECT_API_URL": url, "PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(profiles)}
    refresh_global_settings_context()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        refresh_global_settings_context()


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
