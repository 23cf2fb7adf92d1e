"""The first run of a new user ends with a good model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 1800  # minutes on two idle cores


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("seed", [2, 3])
def test_the_sample_preset_reaches_a_test_auc_of_093(tmp_path: Path, seed: int) -> None:
    folders = {"HOME": str(tmp_path), "PCAM_CACHE": str(tmp_path / "cache"), "PREFECT_HOME": str(tmp_path / "prefect")}
    command = [sys.executable, "-c", "from pcam_model.cli.main import main; main()", "train", "--preset", "sample"]
    command += ["--set", f"seed={seed}", "--run", "first", "--store", str(tmp_path / "store")]
    environment = {**os.environ, **folders}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "store" / "runs" / "first" / "report" / "report.json").read_text())
    assert report["splits"]["test"]["figures"]["auc"]["value"] >= 0.93
    epochs = [epoch for epoch in report["epochs"] if epoch["stage"] == "finetune"]
    assert max(epoch["valid_loss"] for epoch in epochs) < 4
    assert "holds no information" in report["lr_finder"]["frozen"]["reason"]
