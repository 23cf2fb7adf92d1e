"""The split of a run is made once."""

import numpy as np
import pytest

from pcam_model.config_reader import read_config
from pcam_model.data.pack import build_pack
from pcam_model.data.source import fetch
from pcam_model.data.split import SplitConfig, make_split, split_rows
from pcam_model.registry.workspace import Workspace
from tasks import data


@pytest.fixture
def unmapped_pack(tmp_path, patch_set):
    """Patches of unknown slides, enough for clusters; and the config of a run on them."""
    path = patch_set(600).zip(tmp_path / "patches.zip")
    config = read_config(None, ["source.kind=path", f"source.path={path}"])
    return build_pack(fetch(config.source, 2), config.source, tmp_path / "packs", 2), config


def test_a_resumed_run_keeps_the_random_split_that_auto_once_gave(unmapped_pack, tmp_path):
    pack, config = unmapped_pack
    workspace = Workspace(run="a", store=(tmp_path / "store").as_uri(), folder=str(tmp_path / "work"))

    def make_random(folder):
        return make_split(pack, SplitConfig(kind="random"), folder)

    before = workspace.run_step("split", data.Split, make_random, {"pack": pack.digest})
    rows = split_rows(before)
    workspace.cleanup()
    context = data.split.fn(workspace, pack, config)
    assert (context.split.kind, context.split.digest) == ("random", before.digest)
    for name, resumed in split_rows(context.split).items():
        assert np.array_equal(resumed, rows[name])
    other = workspace.model_copy(update={"run": "b", "folder": str(tmp_path / "other")})
    assert data.split.fn(other, pack, config).split.kind == "cluster"
