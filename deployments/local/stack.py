"""Start, share and stop the local stack: its first user starts it, the last one stops it."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, ReadWriteLock, Timeout

from pcam_model.core.errors import PcamError
from tasks.proxies import loopback_variables

REPO = Path(__file__).resolve().parents[2]
STACKS, LOGS, PREFECT_HOME = (REPO / ".pcam" / name for name in ("stack", "logs", "prefect"))
OWN = STACKS / "own"  # the stack with a server of ours; one at the user's server is named for its address
MARK = "PCAM_LOCAL_STACK"  # in the environment of each process that was started: its stack's folder and its part
STATE = "url"  # the file with the server's address, in the folder of a stack that has started
START_TIMEOUT_S, STOP_TIMEOUT_S, SIGNALS = 180, 20, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def set_environment(url: str, own_server: bool) -> None:
    """Have this process and its children use the server at `url`; ours gets none of the user's Prefect settings."""
    for name in [name for name in os.environ if own_server and name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ |= {"PREFECT_HOME": str(PREFECT_HOME)} if own_server else {}
    os.environ |= {"PREFECT_API_URL": url, "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1", "PYTHONUNBUFFERED": "1"}
    os.environ |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    os.environ["PREFECT_SERVER_DATABASE_TIMEOUT"] = "60"  # SQLite on a busy machine
    os.environ |= loopback_variables()


@contextmanager
def lease(keep: bool) -> Iterator[Path]:
    """The folder of a stack that runs inside, and afterwards where others use it or it is to be kept."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    folder = OWN if url in ("", server_url(OWN)) else STACKS / hashlib.sha256(url.encode()).hexdigest()[:8]
    if folder != OWN:
        set_environment(url, own_server=False)
        from tasks.api_server import check_api  # Prefect reads the environment once

        check_api(url)
    folder.mkdir(parents=True, exist_ok=True)
    users = ReadWriteLock(folder / "users.lock")
    try:
        with FileLock(folder / "lock"):
            users.acquire_read()
            if not server_url(folder):
                _start(folder)
            (folder / "kept").touch() if keep else None
        set_environment(server_url(folder), folder == OWN)
        yield folder
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        users.release(force=True)
        stop_unused(folder)


def stop_unused(folder: Path) -> bool:
    """Stop the stack, unless it is kept or in use; whether it has stopped."""
    with FileLock(folder / "lock"), suppress(Timeout):
        if not (folder / "kept").exists():
            with ReadWriteLock(folder / "users.lock").write_lock(blocking=False):
                _stop(folder)
                return True
    return False


def stop_all() -> str:
    """Stop all that was started here, wherever PREFECT_API_URL points now; what became of it."""
    folders = [folder for folder in STACKS.glob("*") if processes(folder)]
    for folder in folders:
        (folder / "kept").unlink(missing_ok=True)
    if not all([stop_unused(folder) for folder in folders]):
        return "A run is under way: the local stack stops when it ends."
    return "The local stack has stopped." if folders else "No local stack runs here."


def processes(folder: Path, part: str = "") -> list[psutil.Process]:
    """The processes of a stack or of a part of it, also those that have lost their parent."""
    listed = psutil.process_iter(["environ", "cmdline"])
    return [one for one in listed if (one.info["environ"] or {}).get(MARK, "").startswith(f"{folder}:{part}")]


def server_url(folder: Path) -> str:
    """The address of the server that a stack uses; empty where its runner, or our server, does not run (yet)."""
    runner = any("deployments.local.server" in (one.info["cmdline"] or []) for one in processes(folder, "runner"))
    complete = runner and (folder != OWN or processes(folder, "server")) and (folder / STATE).exists()
    return (folder / STATE).read_text() if complete else ""


def _start(folder: Path) -> None:
    """Start the runner, and the server where it is to be ours, in sessions of their own; wait for the deployments."""
    _stop(folder)  # what a killed command has left
    LOGS.mkdir(parents=True, exist_ok=True)
    commands = {"runner": ["deployments.local.server", str(folder)]}
    if folder == OWN:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = str(probe.getsockname()[1])
        set_environment(f"http://127.0.0.1:{port}/api", own_server=True)
        commands["server"] = ["prefect", "--no-prompt", "server", "start", "--host", "127.0.0.1", "--port", port]
    children = []
    for part, command in commands.items():
        shared = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "start_new_session": True}
        shared["cwd"] = REPO if part == "runner" else folder  # no .env file of the user's lies there
        with (LOGS / f"{part}.log").open("wb") as log:
            env = os.environ | {MARK: f"{folder}:{part}"}
            children.append(subprocess.Popen([sys.executable, "-m", *command], stdout=log, env=env, **shared))
    end = time.monotonic() + START_TIMEOUT_S
    while not server_url(folder):
        if any(child.poll() is not None for child in children) or time.monotonic() > end:
            raise PcamError(f"the local Prefect server or runner did not start; read why in {LOGS} and run again")
        time.sleep(0.2)


def _stop(folder: Path) -> None:
    """Stop runs and runner, which then can still tell the server, and at last the server."""
    time.sleep(0.1)  # in the instant of its start a process has no environment, and so no mark
    for part in ("runner", ""):
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in processes(folder, part):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            end = time.monotonic() + STOP_TIMEOUT_S
            while processes(folder, part) and time.monotonic() < end:
                time.sleep(0.1)
    for name in ("kept", STATE):
        (folder / name).unlink(missing_ok=True)
