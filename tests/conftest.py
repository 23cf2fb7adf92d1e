"""Small patch sets for all tests; patch_sets.py makes them."""

from collections.abc import Callable
from pathlib import Path

import isolation
import pytest
from patch_sets import PatchSet, make_patch_set


def pytest_configure(config: pytest.Config) -> None:
    """Watch all tests by isolation.py; as a plugin, since session fixtures call no hook of a folder's conftest."""
    config.pluginmanager.register(isolation)


@pytest.fixture
def patch_set() -> Callable[..., PatchSet]:
    """Make a set of real-format files: patch_set(24, suffix="tif", top="", test=0, seed=0)."""
    return make_patch_set


@pytest.fixture
def kaggle_zip(tmp_path: Path) -> Path:
    """A zip of 24 labelled TIFF patches in Kaggle's layout."""
    return make_patch_set(24).zip(tmp_path / "kaggle.zip")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model's files; see a_model.py."""
    from a_model import make_model

    folder = tmp_path_factory.mktemp("model") / "model"
    make_model(folder)
    return folder
