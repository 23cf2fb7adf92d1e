"""What Kaggle has given once is not asked for again: a new machine takes the pack from the store."""

import shutil

import numpy as np
import pytest
from kaggle_standin import COUNTS

from pcam_model.data.pack import load_patches
from pcam_model.data.source import SourceConfig
from pcam_model.registry.workspace import Workspace
from tasks import data
from tasks.kaggle.client import download_competition

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
KAGGLE = SourceConfig(kind="kaggle")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def place(tmp_path):
    return Workspace(run="a", store=(tmp_path / "store").as_uri(), folder=str(tmp_path / "work"))


@pytest.fixture
def given(signed_in, kaggle, cache, place):
    """The pack of what Kaggle gave, kept in the store."""
    assert data.kept.fn(place, KAGGLE, 2) is None
    archive = download_competition(cache / "downloads", **COUNTS)
    pack = data.pack.fn(archive, KAGGLE, 2)
    data.keep.fn(place, pack, KAGGLE, 2)
    return pack


def test_a_new_machine_takes_the_pack_from_the_store(given, kaggle, cache, place):
    pixels = np.array(load_patches(given))
    shutil.rmtree(cache)
    asked = list(kaggle.requests)
    found = data.kept.fn(place, KAGGLE, 5)
    assert found.model_copy(update={"folder": ""}) == given.model_copy(update={"folder": ""})
    assert np.array_equal(load_patches(found), pixels)
    assert kaggle.requests == asked


def test_the_machine_that_packed_uses_its_own(given, cache, place):
    assert data.kept.fn(place, KAGGLE, 2) == given
    assert len(list((cache / "packs").iterdir())) == 1


def test_another_choice_of_patches_is_another_pack(given, place):
    for other in ({"limit": 10}, {"on_bad_patch": "quarantine"}, {"max_bad_fraction": 0.5}):
        assert data.kept.fn(place, KAGGLE.model_copy(update=other), 2) is None


def test_a_damaged_pack_in_the_store_is_said_and_made_good(given, cache, place, tmp_path, capsys, monkeypatch):
    (array,) = (tmp_path / "store" / "datasets").rglob("patches.npy")
    array.write_bytes(array.read_bytes()[:-1] + b"x")
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "new machine"))
    assert data.kept.fn(place, KAGGLE, 2) is None
    assert "Going on: the source is asked instead" in capsys.readouterr().out
    assert not list((tmp_path / "new machine" / "packs").iterdir())
    data.keep.fn(place, given, KAGGLE, 2)
    assert data.kept.fn(place, KAGGLE, 2).digest == given.digest


def test_own_patches_do_not_go_to_the_store(tmp_path, cache, place, kaggle_zip):
    config = SourceConfig(kind="path", path=str(kaggle_zip))
    data.keep.fn(place, data.pack.fn(data.download.fn(config, 2), config, 2), config, 2)
    assert data.kept.fn(place, config, 2) is None
    assert not (tmp_path / "store").exists()
