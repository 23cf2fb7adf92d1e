"""A clone for all tests of one file."""

from pathlib import Path

import pytest
from clone import make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that no stack runs in yet."""
    return make_project(tmp_path_factory.mktemp("clone") / "pcam")
