"""The process that owns a local stack: starts server and worker, and stops both when nobody leases them any more."""

import json
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from deployments.local import api, locks, places, processes
from pcam_model.core.files import write_whole

PATIENCE = 180.0


class Keeper:
    """One stack: `folder` holds its locks and its record; `url` is the user's server, or empty for one of our own."""

    def __init__(self, folder: Path, url: str) -> None:
        """Nothing starts yet."""
        self.folder, self.url, self.own_server = folder, url, not url
        self.children: dict[str, processes.Child] = {}
        self.alive: IO[bytes] | None = None
        self.lease: IO[bytes] | None = None

    def start(self) -> None:
        """Everything up and answering, then the record that says where."""
        processes.sweep(f"{self.folder}:", grace=5)
        if self.own_server:
            self.url = f"http://127.0.0.1:{(port := free_port())}/api"
            self._prefect("server", "start", "--host", "127.0.0.1", "--port", str(port))
            self._wait("server", lambda: api.is_healthy(self.url))
            api.settle(self.url)
        name = f"pcam-{self.folder.name}-{int(time.time())}"
        self._prefect("worker", "start", "--pool", places.POOL, "--type", "process", "--name", name)
        self._wait("worker", lambda: api.has_worker(self.url, places.POOL, name))
        record = {"url": self.url, "own_server": self.own_server}
        write_whole(self.folder / "stack.json", json.dumps(record).encode())

    def stay(self) -> None:
        """Return when the lease is free and nobody asked to keep the stack; raise when a part of it has died."""
        while True:
            if not (self.folder / "kept").exists() and (lease := locks.take(self.folder / "lease", wait=False)):
                self.lease = lease  # held until we are gone: who comes now waits, and then starts afresh
                return
            self._require_alive()
            time.sleep(0.25)

    def stop(self) -> None:
        """Runs and worker first, so that they can still tell the server."""
        (self.folder / "stack.json").unlink(missing_ok=True)
        (self.folder / "kept").unlink(missing_ok=True)
        for part in ("worker", "server"):
            if part == "worker":
                processes.sweep(f"{self.folder}:worker", grace=8)
            if child := self.children.get(part):
                processes.stop(child, grace=8)
        processes.sweep(f"{self.folder}:", grace=2)

    def _prefect(self, part: str, *arguments: str) -> None:
        environment = places.environment(self.url, self.own_server, mark=f"{self.folder}:{part}")
        command = [sys.executable, "-m", "prefect", "--no-prompt", part, *arguments]
        self.children[part] = processes.start(command, places.LOGS / f"{part}.log", environment)

    def _wait(self, part: str, ready: Callable[[], bool]) -> None:
        def ready_or_dead() -> bool:
            self._require_alive()
            if locks.is_free(self.folder / "lease"):
                raise SystemExit("nobody waits for the local stack any more")
            return ready()

        if not processes.wait_until(ready_or_dead, PATIENCE, pause=0.25):
            raise SystemExit(f"the Prefect {part} did not answer within {PATIENCE:.0f} s; see {_log(part)}")

    def _require_alive(self) -> None:
        for part, child in self.children.items():
            if child.poll() is not None:
                raise SystemExit(f"the Prefect {part} ended by itself (exit code {child.returncode}); see {_log(part)}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(folder: Path, url: str) -> None:
    """Keep a stack from its start to its end."""
    for end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, lambda *_: sys.exit("asked to end"))
    keeper = Keeper(folder, url)
    keeper.alive = locks.take(folder / "keeper")
    try:
        keeper.start()
        keeper.stay()
    finally:
        for end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(end, signal.SIG_IGN)
        keeper.stop()


def _log(part: str) -> Path:
    return places.LOGS / f"{part}.log"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
