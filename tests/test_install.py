"""What docs/inference.md tells who shall have no torch, done in an environment of its own."""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from a_model import publish_model
from patch_sets import PatchSet

from pcam_model.registry.channels import promote
from pcam_model.registry.factory import open_store

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r"pip install --no-deps \. && pip install ([a-z0-9 ]+)")
ABSENT = ("torch", "torchvision", "pandas", "prefect", "kaggle", "sklearn", "safetensors")


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The Python of a new environment in which only that was installed."""
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    shutil.copytree(ROOT / "pcam_model", sources / "pcam_model", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python, found = tmp_path / "venv" / "bin" / "python", COMMAND.search((ROOT / "docs" / "inference.md").read_text())
    assert found is not None
    for words in (["--no-deps", str(sources)], ["-c", str(ROOT / "requirements.lock"), *found[1].split()]):
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *words], check=True)
    return python


@pytest.mark.slow
def test_a_machine_without_torch_pulls_and_predicts(
    python: Path, model_folder: Path, patch_set: Callable[..., PatchSet], tmp_path: Path
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    publish_model(store, model_folder)
    promote(store, "made")
    patch_set(12).zip(tmp_path / "k.zip")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PCAM"))}
    environment |= {"PCAM_STORE": store.uri, "PCAM_CACHE": str(tmp_path / "cache")}

    def run(*words: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    for name in ABSENT:
        assert "No module named" in run(python, "-c", f"import {name}").stderr
    pcam = python.with_name("pcam")
    for words in (
        ["pull", "champion", "pulled"],
        ["predict", "pulled", "k.zip", "--backend", "onnx", "--out", "asked.csv"],
        ["predict", "champion", "k.zip", "--out", "default.csv"],
        ["verify"],
        ["channels"],
    ):
        done = run(pcam, *words)
        assert done.returncode == 0, (words, done.stderr)
    tables = [(tmp_path / name).read_bytes() for name in ("asked.csv", "default.csv")]
    assert tables[0] == tables[1]
    assert len(list(csv.reader(tables[0].decode().splitlines()))) == 13
    for words in (["train", "--source", "sample"], ["score", "champion", "k.zip"], ["check"]):
        refused = run(pcam, *words)
        assert refused.returncode == 1, refused.stderr
        assert "Traceback" not in refused.stderr
        missing = r"^pcam: pcam [a-z]+ needs \w+, which is not installed; pip install"
        assert re.search(missing, refused.stderr, re.MULTILINE)
