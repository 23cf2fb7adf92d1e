"""Leases on the local stack: the first who asks starts it, the last who leaves ends it."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.local import api, locks, places, processes
from pcam_model.core.errors import PcamError


class StackError(PcamError):
    """The local stack did not start."""


@dataclass(frozen=True)
class Stack:
    """Where the server answers, and whether it is one of ours."""

    url: str
    own_server: bool


@contextmanager
def leased(keep: bool = False) -> Iterator[Stack]:
    """A stack that stays up inside, and after it where somebody else holds a lease or it is to be kept."""
    folder, url = _folder()
    with locks.holding(folder / "starting"):
        lease = locks.take(folder / "lease", shared=True)
        assert lease is not None
        try:
            stack = _running(folder) or _start(folder, url)
        except BaseException:
            lease.close()
            _wait_for_end(folder)
            raise
    try:
        if keep:
            (folder / "kept").touch()
        yield stack
    finally:
        lease.close()
        if not (folder / "kept").exists():
            _wait_for_end(folder)


def down() -> str:
    """Let the kept stack go; says what became of it."""
    folder, _ = _folder()
    (folder / "kept").unlink(missing_ok=True)
    if not _kept_by(folder):
        processes.sweep(f"{folder}:", grace=5)  # what a keeper that was killed has left
        return "No local stack runs here."
    if _wait_for_end(folder):
        return "The local stack has stopped."
    return "A run is under way: the local stack stops when it ends."


def _folder() -> tuple[Path, str]:
    """The folder of this environment's stack, and the user's server where one answers."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if url and not api.is_healthy(url):
        print(f"PREFECT_API_URL={url} does not answer: using a local Prefect server instead", file=sys.stderr)
        url = ""
    name = hashlib.sha256(url.encode()).hexdigest()[:8] if url else "own"
    folder = places.HOME / "stack" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder, url


def _kept_by(folder: Path) -> bool:
    return not locks.is_free(folder / "keeper")


def _running(folder: Path) -> Stack | None:
    if not _kept_by(folder) or not (folder / "stack.json").exists():
        return None
    return Stack(**json.loads((folder / "stack.json").read_text()))


def _start(folder: Path, url: str) -> Stack:
    for leftover in ("stack.json", "kept"):
        (folder / leftover).unlink(missing_ok=True)
    log = places.LOGS / "keeper.log"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "deployments.local.keeper", str(folder), url]
    keeper = processes.start(command, log, os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        while not (folder / "stack.json").exists():
            if processes.wait_until(lambda: keeper.poll() is not None, 0.2):
                raise StackError(f"the local stack did not start: {(log.read_text().splitlines() or ['?'])[-1]}")
    except BaseException:
        keeper.terminate()
        keeper.wait()
        raise
    return Stack(**json.loads((folder / "stack.json").read_text()))


def _wait_for_end(folder: Path) -> bool:
    """Wait until the keeper has gone, unless somebody else holds a lease; says whether it has."""

    def gone_or_leased() -> bool:
        leased_by_others = not locks.is_free(folder / "lease") and locks.is_free(folder / "lease", shared=True)
        return leased_by_others or not _kept_by(folder)

    processes.wait_until(gone_or_leased, 60)
    return not _kept_by(folder)
