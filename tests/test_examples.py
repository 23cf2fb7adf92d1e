"""The examples run as their first lines say."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from patch_sets import PatchSet

ROOT = Path(__file__).parents[1]


def run(home: Path, module: str, *words: str) -> str:
    """The standard output of an example that ends well, with cache and store of its own."""
    environment = os.environ | {
        "PCAM_CACHE": str(home / "cache"),
        "PCAM_STORE": (home / "store").as_uri(),
        "PREFECT_HOME": str(home / "prefect"),
    }
    command = [sys.executable, "-m", f"examples.{module}", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.e2e
@pytest.mark.slow
def test_training_on_a_folder_prints_figures_with_intervals(tmp_path: Path, patch_set: Callable[..., PatchSet]) -> None:
    source = patch_set(48).zip(tmp_path / "patches.zip")
    tiny = ["model.weights=none", "model.arch=resnet18", "model.image_size=32", "source.max_patches=48"]
    stages = [f"{stage}.{key}" for stage in ("frozen", "finetune") for key in ("epochs=1", "batch_size=8", "lr=1e-3")]
    printed = run(tmp_path, "train_on_your_folder", str(source), *tiny, *stages)
    figures, _, address = printed[printed.index("{") :].rpartition("Report: ")
    assert {"value", "low", "high"} <= json.loads(figures)["valid"]["auc"].keys()
    assert address.strip().endswith("/report/report.html")


def test_predicting_prints_a_line_for_each_image(
    tmp_path: Path, model_folder: Path, patch_set: Callable[..., PatchSet]
) -> None:
    folder = patch_set(4, suffix="png").folder(tmp_path / "patches")
    images = sorted(map(str, (folder / "train").iterdir()))
    lines = run(tmp_path, "pull_and_predict", str(model_folder), *images).splitlines()
    assert [line.rpartition(":")[0] for line in lines[1:]] == images
    assert all(line.endswith("tumour") for line in lines[1:])
