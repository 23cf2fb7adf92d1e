"""One clone and one local stack for the tests here that only use them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from clone import errors, local, make_project, processes_of


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
    assert errors((project / ".pcam/logs/server.log").read_text()) == []
    assert "has stopped" in local(project, "down").stdout
    assert processes_of(project) == []
