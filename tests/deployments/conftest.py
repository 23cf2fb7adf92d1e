"""One clone and one local stack for the tests here that only use them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clone import environment, errors, has_worker, local, make_project, processes_of, start, stop, until


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that no stack runs in yet."""
    return make_project(tmp_path_factory.mktemp("clone") / "pcam")


@pytest.fixture(scope="session")
def server(project: Path) -> Iterator[str]:
    """The address of a stack that was started with `up`."""
    done = local(project, "up")
    assert done.returncode == 0, done.stderr
    url = (project / ".pcam/stack/own/url").read_text()
    yield url
    assert errors((project / ".pcam/logs/server.log").read_text()) == []
    done = local(project, "down", PREFECT_API_URL=url)  # as `up` says to export it
    assert "has stopped" in done.stdout
    assert processes_of(project) == []


@pytest.fixture(scope="session")
def pool(project: Path, server: str) -> Iterator[str]:
    """The name of a pool with a process worker on that server, for deployments that are not the stack's own."""
    options = ["--pool", "local", "--type", "process", "--name", "w"]
    env = environment(PREFECT_API_URL=server, PREFECT_HOME=str(project / "worker"), DO_NOT_TRACK="1")
    worker = start([sys.executable, "-m", "prefect", "worker", "start", *options], project / "worker.log", env)
    assert until(lambda: has_worker(server, "local", "w"))
    yield "local"
    stop(worker, grace=10)
