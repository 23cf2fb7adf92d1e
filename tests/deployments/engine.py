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

from clone import REPO, ask, environment, has_worker, is_healthy, until
from clone import start as start_child
from clone import stop as stop_child

PYTHON = sys.executable
PREFECT = [PYTHON, "-m", "prefect", "--no-prompt"]
IMAGE = "pcam:dev"
SILENCE = 120  # seconds without a heartbeat; they come every 30
PATCH = "import httpx, json, sys; httpx.patch(sys.argv[1], json={'job_variables': json.loads(sys.argv[2])})"
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
LABEL = "label=io.prefect.flow-run-id"
SQLITE = {"PREFECT_SERVER_DATABASE_TIMEOUT": "60"}
ONE_CORE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}  # a run leaves a core to the server and the worker


def sh(*command: str, check: bool = True, **env: str) -> str:
    """What a command says in the project's root."""
    done = subprocess.run(command, cwd=REPO, env=environment(**env), capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return (done.stdout + done.stderr).strip()


@dataclass
class Engine:
    """`folder` holds Prefect's home and logs; a bucket and a database, where they are given, else folders in it."""

    folder: Path
    port: int
    bucket: str
    database: str
    children: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def cache(self) -> str:
        """The volume that is the containers' cache."""
        return f"pcam-cache-{self.port}"

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
        database = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database} if self.database else SQLITE
        return environment(**quiet, **home, **database, **compose_server(), PCAM_STORE=self.inner)

    def start(self, part: str, *command: str) -> None:
        log = self.folder / f"{part}.log"
        self.children[part] = start_child([*PREFECT, *command], log, self.env())

    def start_server(self) -> None:
        self.start("server", "server", "start", "--port", str(self.port))
        assert until(lambda: is_healthy(self.url), 120), self.log("server")

    def start_worker(self) -> None:
        name = f"w{int(time.time())}"
        self.start("worker", "worker", "start", "--pool", "gpu", "--type", "docker", "--name", name)
        assert until(lambda: has_worker(self.url, "gpu", name), 120), self.log("worker")

    def kill(self, part: str) -> None:
        """As a power failure does."""
        os.killpg(self.children[part].pid, signal.SIGKILL)
        self.children.pop(part).wait()

    def clear(self) -> None:
        """All parts are up, no run is under way and no container is left: what a failed test leaves holds the slot."""
        for part, start in (("server", self.start_server), ("worker", self.start_worker)):
            if part not in self.children:
                start()
        state = {"type": "CANCELLED", "name": "Cancelled", "message": "the test is over"}
        for run in ask(f"{self.url}/flow_runs/filter", {}):
            if run["state"]["type"] not in ENDS:
                ask(f"{self.url}/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
        self.remove_containers()

    def remove_containers(self) -> None:
        """Those of flow runs, with their volumes."""
        for container in sh("docker", "ps", "-aq", "--filter", LABEL).split():
            sh("docker", "rm", "-f", "-v", container, check=False)

    def stop(self) -> None:
        for child in reversed(self.children.values()):
            stop_child(child, grace=10)
        self.remove_containers()
        sh("docker", "volume", "rm", "-f", self.cache, check=False)

    def python(self, *words: str) -> str:
        return sh(PYTHON, *words, **{name: self.env()[name] for name in ("PREFECT_API_URL", "PREFECT_HOME")})

    def log(self, part: str) -> str:
        return (self.folder / f"{part}.log").read_text()

    def adapt(self) -> None:
        """The deployments for this machine: a core a run, a cache of their own, and a store that is a folder."""
        for deployment in ask(f"{self.url}/deployments/filter", {}):
            variables = deployment["job_variables"]
            store = [] if self.bucket else [f"{self.folder / 'store'}:/store"]
            variables |= {"env": variables["env"] | ONE_CORE, "volumes": [f"{self.cache}:/var/cache/pcam", *store]}
            self.python("-c", PATCH, f"{self.url}/deployments/{deployment['id']}", json.dumps(variables))

    def deploy(self, name: str, config: dict[str, Any], run: str, on_cpu: bool = True) -> str:
        """Start a run of pcam/NAME, where `config` overrides keys of the deployment's preset; its id."""
        deployment = ask(f"{self.url}/deployments/name/pcam/{name}")
        variables: dict[str, Any] = {}
        if on_cpu:
            kept = deployment["job_variables"]["container_create_kwargs"]
            variables["container_create_kwargs"] = {k: v for k, v in kept.items() if k != "device_requests"}
        parameters = {"config": {**config, "run": run}}
        body = {"parameters": parameters, "job_variables": variables, "state": {"type": "SCHEDULED"}}
        return str(ask(f"{self.url}/deployments/{deployment['id']}/create_flow_run", body)["id"])

    def state(self, run: str) -> str:
        return str(ask(f"{self.url}/flow_runs/{run}")["state"]["type"])

    def ended(self, run: str, seconds: float = 900) -> str:
        """The final state of a run, or the one that it is in when time is over."""
        until(lambda: self.state(run) in ENDS, seconds)
        return self.state(run)

    def run_logs(self, run: str) -> str:
        """A run's log on the server."""
        which = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
        return "\n".join(line["message"] for line in ask(f"{self.url}/logs/filter", which))

    def container(self, run: str) -> str:
        """The container of a flow run."""
        found = until(lambda: sh("docker", "ps", "-q", "--no-trunc", "--filter", f"{LABEL}={run}"), 180)
        assert found, self.log("worker")[-3000:]
        return str(found)

    def runs_on(self, container: str) -> bool:
        return bool(json.loads(sh("docker", "inspect", container))[0]["State"]["Running"])


def compose_server() -> dict[str, str]:
    """The Prefect settings of the Compose stack's server, all but its database."""
    import yaml

    file = yaml.safe_load((REPO / "deployments" / "compose" / "compose.yaml").read_text())
    settings = file["services"]["server"]["environment"]
    return {name: value for name, value in settings.items() if name.startswith("PREFECT_SERVER_") and "$" not in value}
