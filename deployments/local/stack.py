"""Start, share and stop the local stack: a runner, with the runs and, unless the user has one, the server it starts."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path

import psutil
from filelock import FileLock, ReadWriteLock, Timeout

from pcam_model.core.errors import PcamError
from pcam_model.core.write_guard import require_writable, write_guard

REPO = Path(__file__).resolve().parents[2]
STACKS, LOGS, PREFECT_HOME = (REPO / ".pcam" / name for name in ("stack", "logs", "prefect"))
OWN = STACKS / "own"  # the stack with a server of ours; one at the user's server is named for its address
MARK = "PCAM_LOCAL_STACK"  # in the environment of a stack's processes: its folder
STATE = "url"  # the file with the server's address, in the folder of a stack that has started
DEPLOYMENT = {True: "full-train", False: "full-train-local"}  # at the user's server, full-train stays what it is
RUNNER, SERVER = "deployments.local.runner", "prefect.server.api.server:create_app"  # in their command lines
RUNNER_VARIABLES = {"PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1", "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}
START_TIMEOUT_S, STOP_TIMEOUT_S, SIGNALS = 240, 20, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def lease(keep: bool) -> Iterator[Path]:
    """The folder of a stack that runs inside: its first user starts it, the last one stops it unless it is kept.

    Raises:
        PcamError: the user's server cannot be used, ours does not start, or the clone's .pcam cannot be written to.
    """
    import_module("tasks.prefect_settings").import_prefect()  # which `down` need not wait for
    from tasks.api_server import check_api, configured_url
    from tasks.server_process import client_settings

    url = configured_url().rstrip("/")
    folder = OWN if url in ("", server_url(OWN)) else STACKS / hashlib.sha256(url.encode()).hexdigest()[:8]
    if folder != OWN:
        check_api(url)
    for each in (folder, LOGS, PREFECT_HOME):  # as after `sudo make train`, or in another user's clone
        require_writable(each)
    folder.mkdir(parents=True, exist_ok=True)
    users = ReadWriteLock(folder / "users.lock")
    try:
        with write_guard(folder), FileLock(folder / "lock"):
            users.acquire_read()
            if not server_url(folder):
                _start(folder)
            (folder / "kept").touch() if keep else None
        with client_settings(server_url(folder), PREFECT_HOME) if folder == OWN else nullcontext():
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


def processes(folder: Path) -> dict[psutil.Process, str]:
    """The processes of a stack, also those that have lost their parent, with their command lines."""
    listed = psutil.process_iter(["environ", "cmdline"])
    marked = [process for process in listed if (process.info["environ"] or {}).get(MARK) == str(folder)]
    return {process: " ".join(process.info["cmdline"] or []) for process in marked}


def server_url(folder: Path) -> str:
    """The address of the server that a stack uses; empty where its runner, or our server, does not run (yet)."""
    commands = "\n".join(processes(folder).values())
    complete = RUNNER in commands and (folder != OWN or SERVER in commands) and (folder / STATE).exists()
    return (folder / STATE).read_text() if complete else ""


def _start(folder: Path) -> None:
    """Start the runner, with none of the user's Prefect settings where the server is ours; wait for the deployments."""
    _stop(folder)  # what a killed command has left
    LOGS.mkdir(parents=True, exist_ok=True)
    env = {name: value for name, value in os.environ.items() if folder != OWN or not name.startswith("PREFECT_")}
    with (LOGS / "runner.log").open("wb") as log:
        runner = subprocess.Popen(
            [sys.executable, "-m", RUNNER, str(folder)], cwd=REPO, env=env | RUNNER_VARIABLES | {MARK: str(folder)},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    end = time.monotonic() + START_TIMEOUT_S
    while not server_url(folder):
        if runner.poll() is not None or time.monotonic() > end:
            raise PcamError(f"the local Prefect server or runner did not start; read why in {LOGS} and run again")
        time.sleep(0.2)


def _stop(folder: Path) -> None:
    """Stop runs and runner, which then can still tell the server, and at last the server."""
    time.sleep(0.1)  # in the instant of its start a process has no environment, and so no mark
    for number, spared in ((signal.SIGTERM, SERVER), (signal.SIGTERM, None), (signal.SIGKILL, None)):
        for process, command in processes(folder).items():
            if spared is None or spared not in command:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        end = time.monotonic() + STOP_TIMEOUT_S
        while processes(folder) and time.monotonic() < end:
            time.sleep(0.1)
    for name in ("kept", STATE):
        (folder / name).unlink(missing_ok=True)
