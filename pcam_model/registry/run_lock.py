"""One process at a time works on a run on this machine; a second one is told who and where."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcam_model.core.errors import BusyError, ModelError
from pcam_model.core.files import write_atomic
from pcam_model.core.locks import file_lock
from pcam_model.core.parsing import read_record
from pcam_model.core.schema import Record
from pcam_model.core.users import user_name
from pcam_model.core.write_guard import write_guard
from pcam_model.registry.manifest import json_bytes, utc_now


class RunOwner(Record):
    """The process that works on a run."""

    user: str
    host: str
    pid: int
    since: str
    """ISO 8601, UTC."""


@contextmanager
def run_lock(run: str, folder: Path) -> Iterator[None]:
    """Hold a run, whose scratch folder is `folder`; the lock ends with the process.

    Raises:
        BusyError: another process holds it; the message names its user, host and process.
    """
    lock, owner = folder.with_name(f".{folder.name}.lock"), folder.with_name(f".{folder.name}.owner.json")
    entered = False
    try:
        with write_guard(folder.parent), file_lock(lock, timeout=0, remove=True):
            entered = True
            mine = RunOwner(user=user_name(os.getuid()), host=socket.gethostname(), pid=os.getpid(), since=utc_now())
            write_atomic(owner, json_bytes(mine.model_dump()))
            try:
                yield
            finally:
                owner.unlink(missing_ok=True)
    except BusyError:
        if entered:
            raise
        raise BusyError(
            f"run {run!r} is being worked on by {_describe(owner)}; wait for it or end it, or choose another run name"
        ) from None


def _describe(owner: Path) -> str:
    try:
        found = read_record(RunOwner, owner)
    except (OSError, ModelError):  # it has only begun
        return f"another process, in {owner.parent}"
    return f"process {found.pid} of {found.user} on {found.host}, since {found.since}"
