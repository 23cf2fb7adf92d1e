"""A project of its own for each use of the local stack: the real deployments, with tiny flows in the place of ours."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

FLOW = """
import tempfile, time
from pathlib import Path
from typing import Any
from prefect import flow, get_run_logger
from pcam_model.registry.runs import RunStore
from pcam_model.registry.factory import open_store

@flow(name="pcam")
def full_train(config: dict[str, Any], preset: str | None = None):
    source = config["source"]
    for epoch in range(config["finetune"]["epochs"]):
        get_run_logger().info("epoch %d of %s", epoch, source["path"] or source["kind"])
        time.sleep(1)
    if config["seed"] == 13:
        raise ValueError("an unlucky seed")
    home, folder = RunStore(open_store(config["store"]["uri"]), config["run"]), Path(tempfile.mkdtemp())
    home.reserve_run({})
    (folder / "metrics.json").write_text("{}")
    home.commit("report", folder, {"result": {"figures": {"valid": {"auc": {"value": 0.91234}}}}})
    home.publish()
"""

RETRAIN = """
import time
from typing import Any
from prefect import flow

@flow(name="pcam")
def retrain(config: dict[str, Any], preset: str | None = None, promotion: dict[str, Any] = {}):
    time.sleep(config["finetune"]["epochs"])
    if config["seed"] == 13:
        raise ValueError("an unlucky seed")
"""


def make_project(folder: Path) -> Path:
    """A clone's worth of files: the deployments as they are, and the flows above."""
    shutil.copytree(REPO / "deployments", folder / "deployments", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPO / "tasks", folder / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "flows").mkdir()
    (folder / "flows" / "__init__.py").touch()
    (folder / "flows" / "full_train.py").write_text(FLOW)
    (folder / "flows" / "retrain.py").write_text(RETRAIN)
    return folder


def environment(**more: str) -> dict[str, str]:
    """This environment without what would lead the stack elsewhere."""
    ours = ("PREFECT_", "PCAM_", "MAKE")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)} | more


VARIABLES = {"PRESET", "CONFIG", "SOURCE", "SET", "STORE", "RUN"}


def start_local(project: Path, command: str, **env: str) -> "subprocess.Popen[str]":
    """`python -m deployments.local COMMAND` in a project, with no terminal; the Makefile's variables by their names."""
    passed = {f"PCAM_MAKE_{name}" if name in VARIABLES else name: value for name, value in env.items()}
    passed = {"PREFECT_HOME": str(project / "home")} | passed  # whose profile counts
    return subprocess.Popen(
        [sys.executable, "-m", "deployments.local", command], cwd=project, env=environment(**passed),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def local(project: Path, command: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """The same, to its end."""
    with start_local(project, command, **env) as process:
        out, err = process.communicate(timeout=150)
    return subprocess.CompletedProcess([command], process.returncode, out, err)


def processes_of(project: Path) -> list[str]:
    """The command lines of all processes that this project's stack has started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "environ").read_bytes() + b"\0" + (entry / "cmdline").read_bytes()
            if entry.name.isdigit() and f"{project}/.pcam/stack".encode() in words:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def ask(url: str, body: object = None, seconds: float = 60, auth: str = "") -> Any:
    """The JSON that a Prefect server answers to a GET, or to a POST with a body; SQLite that is busy answers 503."""
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {b64encode(auth.encode()).decode()}"}
    request = Request(url, None if body is None else json.dumps(body).encode(), headers)
    for pause in (0.5, 1, 2, 4, None):
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=seconds) as answer:
                content = answer.read()
            return json.loads(content) if content else None
        except HTTPError as error:
            if error.code != 503 or pause is None:
                raise
            time.sleep(pause)


def is_healthy(url: str) -> bool:
    """Whether a Prefect server answers there."""
    try:
        return ask(f"{url}/health", seconds=3) is True
    except (OSError, ValueError):
        return False


def has_worker(url: str, pool: str, name: str) -> bool:
    """Whether the worker of that name is on line in the pool."""
    try:
        workers = ask(f"{url}/work_pools/{pool}/workers/filter", {})
    except (OSError, ValueError):
        return False
    return any(worker["name"] == name and worker["status"] == "ONLINE" for worker in workers)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def start(command: list[str], log: Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a child in a session of its own, with its output in `log`; SIGINT does in it what it does by default."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # an ignored one would stay so in the child
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as out:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=REPO,
                                    start_new_session=True)  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def stop(child: "subprocess.Popen[bytes]", grace: float) -> None:
    """Ask the child to end, and after `grace` seconds end its whole group."""
    child.send_signal(signal.SIGINT)
    until(lambda: child.poll() is not None, grace)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def prefect(url: str, *arguments: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """The command `prefect`, spoken to this server from the project's root."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    env = environment(PREFECT_API_URL=url, PREFECT_HOME=str(home), PWD=str(REPO))
    return subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=240)


LOCKED = ("database is locked",)  # SQLite's


def errors(log: str, waived: tuple[str, ...] = LOCKED) -> list[str]:
    """The errors in a Prefect server's log, with what stands below them; not that SQLite was locked.

    On a busy machine a transaction of Prefect's that turns from reading to writing is refused at once, whatever the
    time-out; the server goes on. On PostgreSQL, which the Compose stack and tests/deployments/engine.py have, nothing
    is waived.
    """
    records = re.split(r"\n(?=\d\d:\d\d:\d\d\.\d{3} \| )", log)
    return [record for record in records if "| ERROR" in record and not any(words in record for words in waived)]


def until(found: Callable[[], Any], seconds: float = 150) -> Any:
    """What is found at last; falsy where it is not in time."""
    end = time.monotonic() + seconds
    while not (it := found()) and time.monotonic() < end:
        time.sleep(0.5)
    return it
