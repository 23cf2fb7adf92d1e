"""What Kaggle has sent once is not downloaded again: a new machine takes the pack from the store."""

import logging
import shutil

import numpy as np
import pytest
from kaggle_standin import COUNTS

from pcam_model.config_reader import read_config
from pcam_model.data.pack import load_patches
from pcam_model.registry.workspace import Workspace
from tasks import data
from tasks.kaggle.client import download_competition

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def kaggle_config(*settings):
    return read_config(None, ["source.kind=kaggle", *settings])


@pytest.fixture(autouse=True)
def steps_are_functions(monkeypatch):
    """No server is needed."""
    for name in ("download", "pack", "fetch_pack", "upload_pack"):
        monkeypatch.setattr(data, name, getattr(data, name).fn)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(run="a", store=(tmp_path / "store").as_uri(), folder=str(tmp_path / "work"))


@pytest.fixture
def stored(signed_in, kaggle, cache, workspace):
    """The pack of what Kaggle has sent, which is in the store too."""
    config = kaggle_config()
    assert data.find_stored_pack(workspace, config) is None
    archive = download_competition(cache / "downloads", **COUNTS)
    pack = data.pack(archive, config)
    data.store_pack(workspace, pack, config)
    return pack


def test_a_new_machine_takes_the_pack_from_the_store(stored, kaggle, cache, workspace):
    pixels = np.array(load_patches(stored))
    shutil.rmtree(cache)
    requests = list(kaggle.requests)
    pack = data.find_stored_pack(workspace, kaggle_config("seed=5"))
    assert pack.model_copy(update={"folder": ""}) == stored.model_copy(update={"folder": ""})
    assert np.array_equal(load_patches(pack), pixels)
    assert kaggle.requests == requests


def test_the_machine_that_packed_uses_its_own(stored, cache, workspace):
    assert data.find_stored_pack(workspace, kaggle_config()) == stored
    assert len(list((cache / "packs").glob("[!.]*"))) == 1


@pytest.mark.parametrize(
    "setting", ["source.max_patches=10", "source.on_bad_patch=quarantine", "source.max_bad_fraction=0.5"]
)
def test_another_choice_of_patches_is_another_pack(stored, workspace, setting):
    assert data.find_stored_pack(workspace, kaggle_config(setting)) is None


def test_a_damaged_pack_in_the_store_is_logged_and_replaced(stored, workspace, tmp_path, caplog, monkeypatch):
    (array,) = (tmp_path / "store" / "datasets").rglob("patches.npy")
    array.write_bytes(array.read_bytes()[:-1] + b"x")
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "new machine"))
    with caplog.at_level(logging.WARNING, "pcam_model"):
        assert data.find_stored_pack(workspace, kaggle_config()) is None
    assert "The source is used instead" in caplog.text
    assert not list((tmp_path / "new machine" / "packs").glob("[!.]*"))
    data.store_pack(workspace, stored, kaggle_config())
    assert data.find_stored_pack(workspace, kaggle_config()).digest == stored.digest


def test_own_patches_are_not_uploaded(tmp_path, cache, workspace, kaggle_zip):
    config = read_config(None, ["source.kind=path", f"source.path={kaggle_zip}"])
    data.store_pack(workspace, data.pack(data.download(config, ""), config), config)
    assert data.find_stored_pack(workspace, config) is None
    assert not (tmp_path / "store").exists()
