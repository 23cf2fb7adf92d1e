"""A project of its own for each use of the local stack: the real deployments, with tiny flows in the place of ours."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

FLOW = """
import json, tempfile, time
from pathlib import Path
from typing import Any
from prefect import flow, get_run_logger
from pcam_model.registry.runs import RunStore
from pcam_model.registry.backends.base import open_store

Group = dict[str, Any]

@flow(name="pcam")
def full_train(source: Group, look: Group, split: Group, network: Group, search: Group, frozen: Group, finetune: Group,
               compute: Group, score: Group, store: Group, run: str = "", seed: int = 2):
    for epoch in range(finetune["epochs"]):
        get_run_logger().info("epoch %d of %s", epoch, source["path"] or source["kind"])
        time.sleep(1)
    if seed == 13:
        raise ValueError("an unlucky seed")
    home, folder = RunStore(open_store(store["uri"]), run), Path(tempfile.mkdtemp())
    (folder / "metrics.json").write_text(json.dumps({"sides": {"valid": {"count": 10, "figures": {"auc": 0.91234}}}}))
    home.commit("report", folder, {})
    home.publish()
"""

RETRAIN = """
import time
from typing import Any
from prefect import flow

Group = dict[str, Any]

@flow(name="pcam")
def retrain(source: Group, split: Group, network: Group, search: Group, frozen: Group, finetune: Group, promotion: Group,
            seed: int = 2):
    time.sleep(finetune["epochs"])
    if seed == 13:
        raise ValueError("an unlucky seed")
"""


def make_project(folder: Path) -> Path:
    """A clone's worth of files: the deployments as they are, and the flows above."""
    shutil.copytree(REPO / "deployments", folder / "deployments", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "flows").mkdir()
    (folder / "flows" / "full_train.py").write_text(FLOW)
    (folder / "flows" / "retrain.py").write_text(RETRAIN)
    return folder


def environment(**more: str) -> dict[str, str]:
    """This environment without what would lead the stack elsewhere."""
    ours = ("PREFECT_", "PCAM_", "MAKE")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)} | more


def start_local(project: Path, *arguments: str, **env: str) -> "subprocess.Popen[str]":
    """`python -m deployments.local ...` in a project, with no terminal."""
    command = [sys.executable, "-m", "deployments.local", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=project, env=environment(**env), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
    )


def local(project: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """The same, to its end."""
    with start_local(project, *arguments, **env) as process:
        out, err = process.communicate(timeout=150)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


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


def ask(url: str, body: object = None) -> Any:
    """What a Prefect server answers to a GET, or to a POST with a body."""
    from deployments.local.api import ask as ask_server

    return ask_server(url, body)


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
