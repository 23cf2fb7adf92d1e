"""A PostgreSQL of the tests' own, as the Compose stack has one."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clone import free_port, until

USER = "postgres" if os.getuid() == 0 else None  # it refuses to run as root; Debian's package makes this user


def programs() -> Path | None:
    """The folder with initdb and postgres; Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return Path(found).resolve().parent if found else debian[-1].parent if debian else None


@contextmanager
def database() -> Iterator[str]:
    """The address that a Prefect server takes, of an empty database that is gone afterwards; "" without PostgreSQL."""
    folder = programs()
    if folder is None:
        yield ""
        return
    port, home = free_port(), Path(tempfile.mkdtemp(prefix="pcam-postgres-"))
    if USER:
        shutil.chown(home, USER)
    data = str(home / "data")
    made = [folder / "initdb", "-D", data, "-U", "prefect", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(made, user=USER, group=USER, cwd=home, check=True, capture_output=True)
    command = [folder / "postgres", "-D", data, "-p", str(port), "-k", str(home), "-c", "listen_addresses=127.0.0.1"]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, user=USER, group=USER, cwd=home, stdout=log, stderr=log)
    try:
        ready = [folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        assert until(lambda: subprocess.run(ready).returncode == 0, 60), (home / "log").read_text()
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
        shutil.rmtree(home)
