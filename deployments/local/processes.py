"""Children in sessions of their own, and an end for them that leaves nothing behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from deployments.local.places import MARK, REPO

Child = subprocess.Popen[bytes]


def start(command: list[str], log: Path, environment: dict[str, str]) -> Child:
    """Start a child that no key press of the terminal reaches, with its output in `log`.

    The caller has handlers of its own for SIGINT and SIGTERM; an exec sets those back to their default, where an
    ignored signal would stay ignored in the child.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, cwd=REPO, start_new_session=True
        )


def wait_until(done: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Wait until it is done, at most so long; says whether it was."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def stop(child: Child, grace: float) -> None:
    """Ask the child to end, and after `grace` seconds end its whole group."""
    child.send_signal(signal.SIGINT)
    wait_until(lambda: child.poll() is not None, grace)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def marked(mark: str) -> list[int]:
    """The processes whose mark begins so, also those that have lost their parent (where the system has a /proc)."""
    wanted = f"{MARK}={mark}".encode()
    return [pid for pid in _pids() if any(entry.startswith(wanted) for entry in _environment(pid).split(b"\0"))]


def sweep(mark: str, grace: float) -> None:
    """End what is left of a stack, or of the part of it that the mark names."""
    _send(marked(mark), signal.SIGTERM)
    if not wait_until(lambda: not marked(mark), grace):
        _send(marked(mark), signal.SIGKILL)
        wait_until(lambda: not marked(mark), grace)


def _pids() -> Iterable[int]:
    proc = Path("/proc")
    return (int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()) if proc.is_dir() else ()


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _send(pids: Iterable[int], what: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, what)
