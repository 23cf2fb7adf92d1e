"""`pcam slides`: exit codes, sentences and JSON; and what needs pcam[slides] says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from slide_files import Composed, write_slide

ROOT = Path(__file__).parents[2]
WITHOUT_OPENSLIDE = """
import sys
sys.modules["openslide"] = None
from pcam_model.cli.main import main
main()
"""


def pcam(cwd: Path, *words: object, code: str = "from pcam_model.cli.main import main; main()") -> tuple[int, str, str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=cwd, env={**environment, "PCAM_CACHE": str(cwd / "cache")}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_slides_are_predicted_and_what_is_broken_is_said(
    model_folder: Path, composed: Composed, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    write_slide(tmp_path / "in" / "a.tif", composed.pixels)
    code, out, _ = pcam(tmp_path, "slides", model_folder, "in", "--out", "out", "--stride", 96, "--no-tta", "--json")
    assert code == 0
    (result,) = json.loads(out)["results"]
    assert (result["name"], result["stride"], result["model"]) == ("a", 96, "made")
    (tmp_path / "in" / "b.svs").write_text("no slide")
    code, out, error = pcam(tmp_path, "slides", model_folder, "in", "--out", "out", "--stride", 96, "--no-tta")
    assert code == 1
    assert "out/slides.csv: 1 slides, 1 of them predicted before" in out
    assert "1 of 2 slides could not be predicted; out/slides.csv lists them with the reasons" in error
    assert "OpenSlide cannot read it" in error


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["slides", "{model}", "a.tif", "--out", "a.tif"], "a.tif is a file, expected a folder"),
        (["slides", "absent", "a.tif", "--out", "out"], "absent"),
        (["slides", "{model}", "in", "--out", "out"], "no slide is among its 0 files"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], sentence: str, model_folder: Path, composed: Composed, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    write_slide(tmp_path / "a.tif", composed.pixels)
    code, _, error = pcam(tmp_path, *(word.format(model=model_folder) for word in words))
    assert code == 1
    assert sentence in error


def test_the_extra_is_named_where_openslide_is_missing(model_folder: Path, composed: Composed, tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif", composed.pixels)
    code, _, error = pcam(tmp_path, "slides", model_folder, "a.tif", "--out", "out", code=WITHOUT_OPENSLIDE)
    assert code == 1
    assert "reading a slide needs openslide, which is not installed; pip install 'pcam[slides]'" in error
