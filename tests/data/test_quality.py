"""Problems of a data set are counted, warned of, and stop the run beyond the limits."""

import json

import numpy as np
import pytest
from patch_sets import plain_tiff
from PIL import Image

from pcam_model.core.errors import SourceError
from pcam_model.data.quality import DataChecksConfig, check_quality

LENIENT = DataChecksConfig(max_conflicts=1, max_blank=1, min_class=0)


def test_blanks_repeats_and_conflicts_are_counted(tmp_path, patch_set, pack):
    dataset = patch_set(20, test=4)
    white, nearly = np.full((96, 96, 3), 240, np.uint8), np.full((96, 96, 3), 240, np.uint8)
    nearly[::2] -= 4
    for row, patch in ((0, white), (1, white), (2, nearly), (4, dataset.patches[6])):
        dataset.files[f"train/{dataset.ids[row]}.tif"] = plain_tiff(patch)
    report = check_quality(pack(dataset.zip(tmp_path / "a.zip")), LENIENT, tmp_path / "checks")
    assert (report.blank, report.nearly_blank, report.repeats, report.conflicts) == (2, 1, 2, 2)
    assert report.counts == {"0": 10, "1": 10, "unlabelled": 4}
    assert len(report.warnings) == 4
    assert json.loads((tmp_path / "checks" / "data_checks.json").read_text())["blank"] == 2
    with Image.open(tmp_path / "checks" / "patches.png") as sheet:
        assert sheet.size[0] == 880


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            DataChecksConfig(max_blank=1),
            r"10\.00% of the patches have the same pixels as a patch with the other label, more than",
        ),
        (DataChecksConfig(max_conflicts=1, max_blank=0.05), r"10\.00% of the patches are blank"),
        (DataChecksConfig(max_conflicts=1, max_blank=1, min_class=0.5), None),
    ],
)
def test_a_limit_stops_the_run_after_the_report_is_written(tmp_path, patch_set, pack, config, message):
    dataset = patch_set(20)
    for row in (0, 1):
        dataset.files[f"train/{dataset.ids[row]}.tif"] = plain_tiff(np.full((96, 96, 3), 240, np.uint8))
    built = pack(dataset.zip(tmp_path / "a.zip"))
    if message is None:
        assert check_quality(built, config, tmp_path / "checks").counts["0"] == 10
        return
    with pytest.raises(SourceError, match=message):
        check_quality(built, config, tmp_path / "checks")
    assert (tmp_path / "checks" / "patches.png").exists()


def test_a_rare_class_stops_the_run(tmp_path, patch_set, pack):
    dataset = patch_set(30)
    lines = dataset.files["train_labels.csv"].replace(b",1\n", b",0\n").splitlines(keepends=True)
    dataset.files["train_labels.csv"] = b"".join([lines[0], lines[1].replace(b",0", b",1"), *lines[2:]])
    with pytest.raises(SourceError, match="one class has 1 of 30 labelled patches"):
        check_quality(pack(dataset.zip(tmp_path / "a.zip")), DataChecksConfig(min_class=0.1), tmp_path / "checks")


def test_the_sample_has_no_problems(tmp_path, pack):
    report = check_quality(pack(max_patches=96), DataChecksConfig(), tmp_path / "checks")
    assert report.blank == report.conflicts == report.repeats == 0
