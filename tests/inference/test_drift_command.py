"""`pcam drift`: result, page and exit code, of images beside a published model."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patch_sets import PatchSet, encoded

from pcam_model.cli import main as cli
from pcam_model.evaluation.drift_reference import DRIFT_FILE

Make = Callable[..., PatchSet]
Pcam = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pcam(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Pcam:
    """pcam(*words) -> exit code, standard output, standard error."""
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "140")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pcam", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code: Any = ended.value.code
        return (code, *capsys.readouterr())

    return run


def test_patches_like_the_reference_are_no_drift(
    model_folder: Path, patch_set: Make, tmp_path: Path, pcam: Pcam
) -> None:
    code, out, _ = pcam("drift", model_folder, patch_set(40, seed=7, suffix="png").zip(tmp_path / "new.zip"))
    assert code == 0, out
    assert "no drift found" in out
    assert "40 patches beside 60" in out


def test_darker_patches_are_drift_with_an_exit_code_and_a_page(
    model_folder: Path, patch_set: Make, tmp_path: Path, pcam: Pcam
) -> None:
    made = patch_set(40, seed=7, suffix="png")
    made.files |= {
        f"train/{each}.png": encoded(patch // 2, "png") for each, patch in zip(made.ids, made.patches, strict=True)
    }
    archive, slides = made.zip(tmp_path / "<new>.zip"), tmp_path / "slides.csv"
    with slides.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "wsi"), *((each, f"wsi-{i % 9}") for i, each in enumerate(made.ids))])
    page = tmp_path / "drift.html"
    code, out, _ = pcam("drift", model_folder, archive, "--json", "--out", page, "--slides", slides)
    result = json.loads(out)
    assert code == 3
    assert result["drifted"]
    assert result["tests"]["stain"]["drifted"]
    assert result["meaning"].startswith("drift: ")
    assert len(result["slides"]) == 9
    text = page.read_text()
    assert "&lt;new&gt;.zip" in text
    assert "<new>" not in text
    assert "wsi-3" in text


def test_what_cannot_be_compared_is_one_sentence(
    model_folder: Path, patch_set: Make, tmp_path: Path, pcam: Pcam
) -> None:
    few = patch_set(8, suffix="png").zip(tmp_path / "few.zip")
    assert pcam("drift", model_folder, few)[2].endswith(
        "8 of 8 images can be read, expected at least 20: fewer do not tell whether they drifted\n"
    )
    enough = patch_set(24, suffix="png").zip(tmp_path / "enough.zip")
    (tmp_path / "slides.csv").write_text("id,wsi\nother,w1\n")
    code, _, error = pcam("drift", model_folder, enough, "--slides", tmp_path / "slides.csv")
    assert (code, "24 of 24 images are not in the map of slides" in error) == (1, True)
    older = tmp_path / "older"
    shutil.copytree(model_folder, older)
    (older / DRIFT_FILE).unlink()
    code, _, error = pcam("drift", older, enough)
    assert (code, "was published without a reference" in error) == (1, True)
