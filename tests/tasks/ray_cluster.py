"""A cluster of Ray's on this machine, in a process group of its own."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parents[2]


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Start it, yield its address, end all of its processes, and undo what Ray's client sets in the environment."""
    ports = [free_port() for _ in range(2)]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:  # a short path
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=1",
            f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}", "--include-dashboard=false",
            f"--temp-dir={folder}", "--object-store-memory=100000000", "--disable-usage-stats",
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        with Path(folder, "ray.log").open("wb") as log:
            head = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            wait_until(lambda: answers(ports[1]) or head.poll() is not None, 120)
            assert head.poll() is None, f"ray ended with {head.returncode}"
            address = f"ray://127.0.0.1:{ports[1]}"
            wait_until(lambda: serves(address, environment), 300)
            with patch.dict(os.environ):  # Ray's client leaves RAY_CLIENT_MODE in it
                yield address
        finally:
            for number, timeout_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
                try:
                    os.killpg(head.pid, number)
                    head.wait(timeout_s)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_until(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.1)


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def serves(address: str, environment: dict[str, str]) -> bool:
    """Whether a client is let in: Ray gives a client's server 30 s to start, which the first misses on a cold disk."""
    client = [sys.executable, "-c", "import ray, sys; ray.init(sys.argv[1])", address]
    return subprocess.run(client, env=environment, stderr=subprocess.DEVNULL).returncode == 0
