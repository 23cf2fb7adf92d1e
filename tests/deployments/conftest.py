"""One clone and one local stack for the tests here that only use them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from clone import local, make_project, processes_of


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that no stack runs in yet."""
    return make_project(tmp_path_factory.mktemp("clone") / "pcam")


@pytest.fixture(scope="session")
def server(project: Path) -> Iterator[str]:
    """The address of a stack that was started with `up`."""
    done = local(project, "up")
    assert done.returncode == 0, done.stderr
    yield json.loads((project / ".pcam/stack/own/stack.json").read_text())["url"]
    errors = [line for line in (project / ".pcam/logs/server.log").read_text().splitlines() if "| ERROR" in line]
    # On a busy machine SQLite is locked for longer than a worker's heartbeat waits; the next one comes in seconds.
    assert [line for line in errors if "heartbeat persistence failed" not in line] == []
    assert "has stopped" in local(project, "down").stdout
    assert processes_of(project) == []
