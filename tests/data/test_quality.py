"""What is wrong with a set is counted, said, and stops the run where it is too much."""

import json

import numpy as np
import pytest
from patch_sets import plain_tiff
from PIL import Image

from pcam_model.core.errors import SourceError
from pcam_model.data.quality import DataChecksConfig, check_quality

LENIENT = DataChecksConfig(max_conflicts=1, max_blank=1, min_class=0)


def test_blanks_repeats_and_conflicts_are_counted(tmp_path, patch_set, pack):
    made = patch_set(20, test=4)
    white, nearly = np.full((96, 96, 3), 240, np.uint8), np.full((96, 96, 3), 240, np.uint8)
    nearly[::2] -= 4
    for place, patch in ((0, white), (1, white), (2, nearly), (4, made.patches[6])):
        made.files[f"train/{made.ids[place]}.tif"] = plain_tiff(patch)
    found = check_quality(pack(made.zip(tmp_path / "a.zip")), LENIENT, tmp_path / "checks")
    assert (found.blank, found.nearly_blank, found.repeats, found.conflicts) == (2, 1, 2, 2)
    assert found.counts == {"0": 10, "1": 10, "unlabelled": 4}
    assert len(found.warnings) == 4
    assert json.loads((tmp_path / "checks" / "data_checks.json").read_text())["blank"] == 2
    with Image.open(tmp_path / "checks" / "patches.png") as sheet:
        assert sheet.size[0] == 880


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            DataChecksConfig(max_blank=1),
            r"10\.00% of the patches have the pixels of one with the other label, more than",
        ),
        (DataChecksConfig(max_conflicts=1, max_blank=0.05), r"10\.00% of the patches are blank"),
        (DataChecksConfig(max_conflicts=1, max_blank=1, min_class=0.5), None),
    ],
)
def test_too_much_stops_the_run_and_shows_what_was_seen(tmp_path, patch_set, pack, config, sentence):
    made = patch_set(20)
    for place in (0, 1):
        made.files[f"train/{made.ids[place]}.tif"] = plain_tiff(np.full((96, 96, 3), 240, np.uint8))
    found = pack(made.zip(tmp_path / "a.zip"))
    if sentence is None:
        assert check_quality(found, config, tmp_path / "checks").counts["0"] == 10
        return
    with pytest.raises(SourceError, match=sentence):
        check_quality(found, config, tmp_path / "checks")
    assert (tmp_path / "checks" / "patches.png").exists()


def test_a_rare_class_stops_the_run(tmp_path, patch_set, pack):
    made = patch_set(30)
    lines = made.files["train_labels.csv"].replace(b",1\n", b",0\n").splitlines(keepends=True)
    made.files["train_labels.csv"] = b"".join([lines[0], lines[1].replace(b",0", b",1"), *lines[2:]])
    with pytest.raises(SourceError, match="one class has 1 of 30 labelled patches"):
        check_quality(pack(made.zip(tmp_path / "a.zip")), DataChecksConfig(min_class=0.1), tmp_path / "checks")


def test_the_sample_looks_well(tmp_path, pack):
    found = check_quality(pack(max_patches=96), DataChecksConfig(), tmp_path / "checks")
    assert found.blank == found.conflicts == found.repeats == 0
