"""A server, a docker pool and a worker, each of which can be killed and started again; and the runs on them."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clone import REPO, ask, environment, until

PYTHON = sys.executable
PREFECT = [PYTHON, "-m", "prefect", "--no-prompt"]
IMAGE = "pcam:dev"
SILENCE = 120  # seconds without a heartbeat; they come every 30
PATCH = "import httpx, json, sys; httpx.patch(sys.argv[1], json={'job_variables': json.loads(sys.argv[2])})"
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def sh(*command: str, check: bool = True, **env: str) -> str:
    """What a command says in the project's root."""
    done = subprocess.run(command, cwd=REPO, env=environment(**env), capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return (done.stdout + done.stderr).strip()


@dataclass
class Engine:
    """`folder` holds Prefect's home and logs; the store is a bucket where one is given, else a folder."""

    folder: Path
    port: int
    bucket: str
    children: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def inner(self) -> str:
        """The store's address in a container."""
        return f"s3://{self.bucket}/{self.folder.name}-{self.port}" if self.bucket else "file:///store"

    @property
    def outer(self) -> str:
        """The same on this machine."""
        return self.inner if self.bucket else (self.folder / "store").as_uri()

    def env(self) -> dict[str, str]:
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
        home = {"PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.folder / "prefect")}
        return environment(**quiet, **home, PCAM_STORE=self.inner, PREFECT_SERVER_DATABASE_TIMEOUT="60")

    def start(self, part: str, *command: str) -> None:
        from deployments.local import processes

        log = self.folder / f"{part}.log"
        self.children[part] = processes.start([*PREFECT, *command], log, self.env())

    def start_server(self) -> None:
        from deployments.local import api

        self.start("server", "server", "start", "--port", str(self.port))
        assert until(lambda: api.is_healthy(self.url), 120)

    def start_worker(self) -> None:
        from deployments.local import api

        name = f"w{int(time.time())}"
        self.start("worker", "worker", "start", "--pool", "gpu", "--type", "docker", "--name", name)
        assert until(lambda: api.has_worker(self.url, "gpu", name), 120), self.log("worker")

    def kill(self, part: str) -> None:
        """As a power failure does."""
        os.killpg(self.children[part].pid, signal.SIGKILL)
        self.children.pop(part).wait()

    def stop(self) -> None:
        from deployments.local import processes

        for child in reversed(self.children.values()):
            processes.stop(child, grace=10)
        for container in sh("docker", "ps", "-aq", "--filter", "label=io.prefect.flow-run-id").split():
            sh("docker", "rm", "-f", "-v", container, check=False)

    def python(self, *words: str) -> str:
        return sh(PYTHON, *words, **{name: self.env()[name] for name in ("PREFECT_API_URL", "PREFECT_HOME")})

    def log(self, part: str) -> str:
        return (self.folder / f"{part}.log").read_text()

    def mount(self) -> None:
        """A store that is a folder becomes a volume of every deployment's containers."""
        for deployment in [] if self.bucket else ask(f"{self.url}/deployments/filter", {}):
            variables = deployment["job_variables"] | {"volumes": [f"{self.folder / 'store'}:/store"]}
            self.python("-c", PATCH, f"{self.url}/deployments/{deployment['id']}", json.dumps(variables))

    def deploy(self, name: str, plan: dict[str, Any], run: str, on_cpu: bool = True) -> str:
        """Start a run of pcam/NAME; its id."""
        deployment = ask(f"{self.url}/deployments/name/pcam/{name}")
        variables: dict[str, Any] = {}
        if on_cpu:
            kept = deployment["job_variables"]["container_create_kwargs"]
            variables["container_create_kwargs"] = {k: v for k, v in kept.items() if k != "device_requests"}
        body = {"parameters": {**plan, "run": run}, "job_variables": variables, "state": {"type": "SCHEDULED"}}
        return str(ask(f"{self.url}/deployments/{deployment['id']}/create_flow_run", body)["id"])

    def state(self, run: str) -> str:
        return str(ask(f"{self.url}/flow_runs/{run}")["state"]["type"])

    def ended(self, run: str, seconds: float = 900) -> str:
        """The final state of a run, or the one that it is in when time is over."""
        until(lambda: self.state(run) in ENDS, seconds)
        return self.state(run)

    def said(self, run: str) -> str:
        """A run's log on the server."""
        which = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
        return "\n".join(line["message"] for line in ask(f"{self.url}/logs/filter", which))

    def container(self, run: str) -> str:
        """The container of a flow run."""
        label = f"label=io.prefect.flow-run-id={run}"
        found = until(lambda: sh("docker", "ps", "-q", "--no-trunc", "--filter", label), 120)
        assert found, self.log("worker")[-3000:]
        return str(found)

    def runs_on(self, container: str) -> bool:
        return bool(json.loads(sh("docker", "inspect", container))[0]["State"]["Running"])
