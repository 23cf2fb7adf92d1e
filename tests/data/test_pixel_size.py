"""The pixel size of patches: given, known or assumed; it changes no digest and travels to pack and card."""

import json
from pathlib import Path

import numpy as np
import pytest
from a_model import make_model
from official_files import official_folder

from pcam_model.core.model_metadata import METADATA_FILE, read_metadata
from pcam_model.core.pixel_size import PixelSize, relative_difference
from pcam_model.data.pack import open_pack
from pcam_model.data.source import SourceConfig, pixel_size
from pcam_model.registry.factory import open_store
from pcam_model.registry.manifest import read_manifest
from pcam_model.registry.runs import RunStore


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"kind": "sample"}, (0.972, False)),
        ({"kind": "kaggle"}, (0.972, False)),
        ({"kind": "path", "path": "https://zenodo.org/records/2546921/files"}, (0.972, False)),
        ({"kind": "path", "path": "mine.zip"}, (0.972, True)),
        ({"kind": "path", "path": "mine.zip", "mpp": 0.5}, (0.5, False)),
        ({"kind": "kaggle", "mpp": 0.5}, (0.5, False)),
    ],
)
def test_the_pixel_size_is_given_known_or_assumed(keys: dict[str, object], expected: tuple[float, bool]) -> None:
    assert pixel_size(SourceConfig.model_validate(keys)) == PixelSize(*expected)


def test_the_pixel_size_of_pcams_files_is_known(tmp_path: Path) -> None:
    official_folder(tmp_path / "pcam")
    assert pixel_size(SourceConfig(kind="path", path=str(tmp_path / "pcam"))) == PixelSize(0.972, assumed=False)


@pytest.mark.parametrize("mpp", [0, -1, 21])
def test_a_pixel_size_that_cannot_be_is_refused(mpp: float) -> None:
    with pytest.raises(ValueError, match="mpp"):
        SourceConfig(mpp=mpp)


def test_another_pixel_size_leaves_patches_and_digest_as_they_are(kaggle_zip, pack):
    assumed = pack(kaggle_zip)
    patches = Path(assumed.folder) / "patches.npy"
    before = patches.stat().st_mtime_ns
    given = pack(kaggle_zip, mpp=0.5)
    assert (assumed.mpp, assumed.mpp_assumed, given.mpp, given.mpp_assumed) == (0.972, True, 0.5, False)
    assert (given.digest, given.folder) == (assumed.digest, assumed.folder)
    assert patches.stat().st_mtime_ns == before
    assert open_pack(Path(given.folder)) == given
    assert pack(kaggle_zip) == assumed


def test_a_pack_and_a_model_of_before_are_of_assumed_size(kaggle_zip, pack, tmp_path, model_folder):
    path = Path(pack(kaggle_zip, mpp=0.5).folder) / "pack.json"
    record = json.loads(path.read_bytes())
    del record["mpp"], record["mpp_assumed"], record["sha256"]
    path.write_text(json.dumps(record))
    assert (open_pack(path.parent).mpp, open_pack(path.parent).mpp_assumed) == (0.972, True)
    model = json.loads((model_folder / METADATA_FILE).read_bytes())
    del model["mpp"], model["mpp_assumed"]
    (tmp_path / METADATA_FILE).write_text(json.dumps(model))
    assert (read_metadata(tmp_path).mpp, read_metadata(tmp_path).mpp_assumed) == (0.972, True)


def test_the_manifest_tells_the_pixel_size_of_the_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model").model_copy(update={"mpp": 0.5})
    store = open_store((tmp_path / "store").as_uri())
    run = RunStore(store, "made")
    run.reserve_run({})
    run.commit("model", tmp_path / "model", {"result": model.model_dump(mode="json"), "inputs": {}})
    run.publish()
    assert read_manifest(store, "made")[0].mpp == 0.5


def test_a_mismatch_is_the_same_in_both_directions() -> None:
    assert relative_difference(0.972, 0.972) == 0
    np.testing.assert_allclose([relative_difference(0.25, 0.5), relative_difference(0.5, 0.25)], 1)
