"""A Prefect server with a login, as the Compose stack starts it: who is let in, and where the login is kept."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from clone import REPO, ask, environment, free_port, is_healthy, start, stop, until
from engine import compose_server

pytestmark = pytest.mark.slow

LOGIN = "pcam:0123456789abcdef"
EMIT = "from prefect.events import emit_event; emit_event('pcam.drift', resource={'prefect.resource.id': 'pcam.model'})"

# What a worker makes of the pool for a run.
JOB = """
import asyncio, json, os, uuid
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect_docker.worker import DockerWorkerJobConfiguration as Job

async def prepare():
    os.environ["AWS_SECRET_ACCESS_KEY"] = "key-of-the-jobs"
    async with get_client() as client:
        pool = await client.read_work_pool("gpu")
        job = await Job.from_template_and_values(pool.base_job_template, {}, client=client)
    job.prepare_for_flow_run(FlowRun(flow_id=uuid.uuid4(), name="run"))
    print(json.dumps({"env": job.env, "networks": job.networks, "network_mode": job.get_network_mode()}))

asyncio.run(prepare())
"""


class Secured:
    """A server that was started with `LOGIN`, its API's address and its home."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.home, self.url = folder / "prefect", f"http://127.0.0.1:{port}/api"
        settings = {"PREFECT_HOME": str(self.home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
        env = environment(**settings, **compose_server(), PREFECT_SERVER_API_AUTH_STRING=LOGIN)
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
        self.log, self.process = folder / "log", start(command, folder / "log", env)

    def python(self, *words: str, login: str = LOGIN) -> "subprocess.CompletedProcess[str]":
        client = {"PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.home.parent / "client")}
        login_of = {"PREFECT_API_AUTH_STRING": login} if login else {}
        env = environment(**client, **login_of, PYTHONPATH=os.environ.get("PYTHONPATH", ""))
        return subprocess.run([sys.executable, *words], cwd=REPO, env=env, capture_output=True, text=True, timeout=240)

    def ask(self, path: str, body: object = None) -> Any:
        return ask(f"{self.url}{path}", body, auth=LOGIN)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    server = Secured(tmp_path_factory.mktemp("secured"))
    try:
        assert until(lambda: is_healthy(server.url)), server.log.read_text()  # which asks for no login
        yield server
    finally:
        stop(server.process, grace=10)


def test_nobody_is_let_in_without_the_login(secured: Secured) -> None:
    for auth in ("", "pcam:wrong"):
        with pytest.raises(HTTPError, match="401"):
            ask(f"{secured.url}/work_pools/filter", {}, auth=auth)
    for module, words in (("pools", ["none"]), ("automations", [])):
        refused = secured.python("-m", f"deployments.{module}", *words, login="")
        assert refused.returncode == 1
        assert "answers 401" in refused.stderr
        assert "set PREFECT_API_AUTH_STRING=user:password" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert "none" not in [pool["name"] for pool in secured.ask("/work_pools/filter", {})]


def test_the_stacks_own_steps_work_with_the_login_and_leave_it_nowhere_in_the_server(secured: Secured) -> None:
    for module, words in (("pools", ["gpu", "--network", "pcam-jobs"]), ("automations", [])):
        done = secured.python("-m", f"deployments.{module}", *words)
        assert done.returncode == 0, done.stderr
    fields = secured.ask("/work_pools/gpu")["base_job_template"]["variables"]["properties"]
    assert fields["networks"]["default"] == ["pcam-jobs"]
    assert secured.python("-c", EMIT).returncode == 0  # events have a connection of their own: heartbeats come by it
    which = {"filter": {"event": {"name": ["pcam.drift"]}}}
    assert until(lambda: secured.ask("/events/filter", which)["total"] == 1, 60)
    password = LOGIN.partition(":")[2].encode()
    kept = [path for path in secured.home.parent.rglob("*") if path.is_file() and password in path.read_bytes()]
    assert kept == []
    assert any(path.name == "prefect.db" for path in secured.home.iterdir())


def test_a_container_gets_the_login_and_the_jobs_key_from_its_worker(secured: Secured) -> None:
    assert secured.python("-m", "deployments.pools", "gpu", "--network", "pcam-jobs").returncode == 0
    done = secured.python("-c", JOB)
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["env"]["PREFECT_API_AUTH_STRING"] == LOGIN
    assert job["env"]["AWS_SECRET_ACCESS_KEY"] == "key-of-the-jobs"
    assert "PREFECT_SERVER_API_AUTH_STRING" not in job["env"]
    assert (job["networks"], job["network_mode"]) == (["pcam-jobs"], None)
