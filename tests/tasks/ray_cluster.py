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

ROOT = Path(__file__).parents[2]


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Start it, yield its address, and end all of its processes."""
    ports = [free_port() for _ in range(2)]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as place:  # a short path
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=1",
            f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}", "--include-dashboard=false",
            f"--temp-dir={place}", "--object-store-memory=100000000", "--disable-usage-stats",
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        with Path(place, "said.txt").open("wb") as said:
            head = subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)
        try:
            wait_until(lambda: answers(ports[1]) or head.poll() is not None, 120)
            assert head.poll() is None, f"ray ended with {head.returncode}"
            address = f"ray://127.0.0.1:{ports[1]}"
            wait_until(lambda: serves(address, environment), 300)
            yield address
        finally:
            for kind, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
                try:
                    os.killpg(head.pid, kind)
                    head.wait(patience)
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
    with socket.socket() as place:
        return place.connect_ex(("127.0.0.1", port)) == 0


def serves(address: str, environment: dict[str, str]) -> bool:
    """Whether a client is let in: Ray gives a client's server 30 s to start, which the first misses on a cold disk."""
    client = [sys.executable, "-c", "import ray, sys; ray.init(sys.argv[1])", address]
    return subprocess.run(client, env=environment, stderr=subprocess.DEVNULL).returncode == 0
