"""The image on a real engine: what it holds, and the flow in containers. `make test-container` runs these."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clone import REPO, environment

pytestmark = [
    pytest.mark.container,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("PCAM_TEST_CONTAINER" not in os.environ, reason="runs by make test-container"),
]
IMAGE = "pcam:dev"
SMALL = {
    "source": {"kind": "sample", "limit": 200},
    "network": {"name": "resnet18", "weights": "none", "size": 64},
    "frozen": {"epochs": 1, "batch": 32, "rate": 1e-3},
    "tuned": {"epochs": 1, "batch": 32, "rate": 1e-3},
}


def sh(*command: str, check: bool = True, **env: str) -> str:
    done = subprocess.run(command, cwd=REPO, env=environment(**env), capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return (done.stdout + done.stderr).strip()


def inside(*command: str, check: bool = True) -> str:
    """What a command says in a container whose root file system is read-only."""
    return sh("docker", "run", "--rm", "--read-only", "--network", "none", IMAGE, *command, check=check)


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    commit = sh("git", "rev-parse", "HEAD")
    sh("docker", "build", "--network", "host", "-t", IMAGE, "--build-arg", f"COMMIT={commit}", ".")


def test_the_image_runs_as_nobody_special_on_a_read_only_system() -> None:
    assert inside("id", "-u") == "10001"
    assert "train" in inside("pcam", "--help")
    writable = inside(
        "sh", "-c", "find / -xdev -writable -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null", check=False
    )
    assert all(
        path.startswith(("/opt/prefect", "/var/cache/pcam", "/tmp", "/var/tmp", "/run/lock"))
        for path in writable.split()
    )
    assert "Read-only file system" in inside("sh", "-c", "touch /tmp/x", check=False)
    assert inside("sh", "-c", "touch /opt/prefect/x /var/cache/pcam/x && cat /proc/1/comm") == "tini"


def test_no_layer_holds_a_credential_and_the_labels_say_what_it_is() -> None:
    history = sh("docker", "history", "--no-trunc", IMAGE)
    about: dict[str, Any] = json.loads(sh("docker", "inspect", IMAGE))[0]["Config"]
    for word in ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY"):
        assert word not in history and word not in " ".join(about["Env"])
    assert about["Labels"]["org.opencontainers.image.revision"] == sh("git", "rev-parse", "HEAD")
    assert inside("sh", "-c", "find /opt /var/cache/pcam -name '.env*' -o -name kaggle.json -o -name '.git'") == ""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server, the pool, the automation with a short patience, the deployments, and a docker worker."""
    from deployments.local import api, keeper, processes

    home = tmp_path_factory.mktemp("prefect")
    url = f"http://127.0.0.1:{(port := keeper.free_port())}/api"
    store = tmp_path_factory.mktemp("store")
    store.chmod(0o777)  # the container's user is not ours
    # With a bucket the credentials go the way of production: the worker's environment, by name.
    bucket = os.environ.get("PCAM_TEST_BUCKET")
    inner, outer = (f"s3://{bucket}/{store.name}-{port}",) * 2 if bucket else ("file:///store", store.as_uri())
    env = {"PREFECT_API_URL": url, "PREFECT_HOME": str(home), "PCAM_STORE": inner, "OUTER": outer, "STORE": str(store)}
    env |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "HOME_LOG": str(home)}
    prefect = [str(REPO / ".venv/bin/prefect"), "--no-prompt"]
    whole = environment(**env)
    server = processes.start([*prefect, "server", "start", "--port", str(port)], home / "server.log", whole)
    children = [server]
    try:
        assert processes.wait_until(lambda: api.is_healthy(url), 120)
        sh(str(REPO / ".venv/bin/python"), "-m", "deployments.pools", "gpu", "--network", "host", **env)
        sh(str(REPO / ".venv/bin/python"), "-m", "deployments.automations", "75", **env)
        sh(*prefect, "deploy", "--all", "--prefect-file", "deployments/prefect.yaml", **env)
        worker = [*prefect, "worker", "start", "--pool", "gpu", "--type", "docker", "--name", "w"]
        children.append(processes.start(worker, home / "worker.log", whole))
        assert processes.wait_until(lambda: api.has_worker(url, "gpu", "w"), 120)
        yield env
        assert "| ERROR" not in (home / "server.log").read_text()
    finally:
        for child in reversed(children):
            processes.stop(child, grace=10)


def start(stack: dict[str, str], name: str, plan: dict[str, Any], run: str) -> str:
    """Start a run of pcam/NAME; its id. The store is a folder of this machine, mounted."""
    from deployments.local.api import ask

    deployment = ask(f"{stack['PREFECT_API_URL']}/deployments/name/pcam/{name}")
    variables = {"volumes": [f"{stack['STORE']}:/store"]}
    body = {"parameters": {**plan, "run": run}, "job_variables": variables, "state": {"type": "SCHEDULED"}}
    return str(ask(f"{stack['PREFECT_API_URL']}/deployments/{deployment['id']}/create_flow_run", body)["id"])


def ended(stack: dict[str, str], run: str, seconds: float = 900) -> tuple[str, str]:
    """The final state of a run and its message."""
    return waited(stack, run, ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), seconds)


def waited(stack: dict[str, str], run: str, states: tuple[str, ...], seconds: float) -> tuple[str, str]:
    from deployments.local.api import ask

    end = time.monotonic() + seconds
    while True:
        state = ask(f"{stack['PREFECT_API_URL']}/flow_runs/{run}")["state"]
        if state["type"] in states or time.monotonic() > end:
            return state["type"], state["message"] or ""
        time.sleep(1)


def log(stack: dict[str, str]) -> str:
    return (Path(stack["HOME_LOG"]) / "worker.log").read_text()[-4000:]


def container_of(run: str) -> str:
    """The container of a flow run."""
    end = time.monotonic() + 90
    while not (found := sh("docker", "ps", "-q", "--filter", f"label=io.prefect.flow-run-id={run}")):
        assert time.monotonic() < end
        time.sleep(0.5)
    return found


def test_a_run_in_the_container_is_published_and_its_model_scores_on_the_host(stack: dict[str, str]) -> None:
    run = start(stack, "smoke", SMALL, "smoke")
    about = json.loads(sh("docker", "inspect", container_of(run)))[0]
    assert about["HostConfig"]["ReadonlyRootfs"] and about["Config"]["User"] == "pcam"
    assert ended(stack, run)[0] == "COMPLETED", log(stack)
    pcam = str(REPO / ".venv/bin/pcam")
    assert "smoke" in sh(pcam, "runs", "--store", stack["OUTER"])
    assert '"auc"' in sh(pcam, "score", "smoke", "sample", "--store", stack["OUTER"], "--json")


def test_the_gpu_request_reaches_the_engine(stack: dict[str, str]) -> None:
    run = start(stack, "full-train", SMALL, "gpu")
    state, _ = ended(stack, run)
    assert state == "COMPLETED" or "could not select device driver" in log(stack), log(stack)


def test_a_container_that_is_killed_ends_its_run_as_crashed_and_it_goes_on_later(stack: dict[str, str]) -> None:
    run = start(stack, "smoke", SMALL, "killed")
    assert waited(stack, run, ("RUNNING",), 120)[0] == "RUNNING"
    sh("docker", "kill", container_of(run))
    assert ended(stack, run, 180)[0] == "CRASHED"
    assert ended(stack, start(stack, "smoke", SMALL, "killed"))[0] == "COMPLETED", log(stack)


def test_a_cancelled_run_is_gone(stack: dict[str, str]) -> None:
    from deployments.local.api import ask

    run = start(stack, "smoke", SMALL, "cancelled")
    assert waited(stack, run, ("RUNNING",), 120)[0] == "RUNNING"
    container = container_of(run)
    state = {"type": "CANCELLING", "name": "Cancelling"}
    ask(f"{stack['PREFECT_API_URL']}/flow_runs/{run}/set_state", {"state": state})
    assert ended(stack, run, 60)[0] == "CANCELLED"
    end = time.monotonic() + 15
    while sh("docker", "ps", "-q", "--no-trunc", "--filter", f"id={container}") and time.monotonic() < end:
        time.sleep(0.5)
    assert sh("docker", "ps", "-q", "--filter", f"id={container}") == ""
