"""Many slides: killed at any moment, the command and the flow end with the same tables; broken ones stop no other."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from a_model import publish_model

from pcam_model.registry.channels import promote
from pcam_model.registry.factory import open_store
from pcam_model.slides.records import RECORD_FILE
from tests.slides.slide_files import Composed, compose, write_slide

pytest.importorskip("openslide", reason="needs pcam[slides]")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KILLS", 3))
SLIDES = 3
COMMAND = "from pcam_model.cli.main import main; main()"
FLOW = """
import sys
from flows.slides import slides
from pcam_model.registry.config import StoreConfig
from pcam_model.slides.records import SlideOptions
slides("in", store=StoreConfig(uri=sys.argv[1]), options=SlideOptions(), tta=False)
"""
Tables = dict[str, object]


class Work(NamedTuple):
    """How slides are predicted into a folder, and where their results are then."""

    words: Callable[[Path], list[str]]
    results: str


@pytest.fixture(scope="module")
def composed() -> Composed:
    """A mosaic of 12 generated patches."""
    return compose()


@pytest.fixture
def home(model_folder: Path, composed: Composed, tmp_path: Path) -> Path:
    """A folder with a model in a store and some slides."""
    store = open_store((tmp_path / "store").as_uri())
    publish_model(store, model_folder)
    promote(store, "made")
    (tmp_path / "in").mkdir()
    for number in range(SLIDES):
        write_slide(tmp_path / "in" / f"{number}.tif", composed.pixels[: 300 + 50 * number])
    return tmp_path


def start(home: Path, words: list[str], api_url: str) -> "subprocess.Popen[str]":
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        "PCAM_CACHE": str(home / "cache"), "PREFECT_API_URL": api_url, "PREFECT_HOME": str(home / "prefect"),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", *words], cwd=home, env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def tables(folder: Path) -> Tables:
    """All that was written, without the seconds that it took."""
    found: Tables = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.name == "slides.csv":
            with path.open() as file:
                rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
            found[name] = sorted(rows, key=lambda row: row["name"])
        elif path.name == RECORD_FILE:
            found[name] = {**json.loads(path.read_text()), "seconds": 0}
        elif path.suffix in (".parquet", ".geojson", ".png", ".tif"):
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return found


def command(home: Path) -> list[str]:
    """`pcam slides` into `out`."""
    return [COMMAND, "slides", "champion", "in", "--out", "out", "--no-tta", "--store", (home / "store").as_uri()]


def flow(home: Path) -> list[str]:
    """The flow, into the store."""
    return [FLOW, (home / "store").as_uri()]


@pytest.mark.parametrize("work", [Work(command, "out"), Work(flow, "store/slides")], ids=["command", "flow"])
@pytest.mark.timeout(600 + 60 * KILLS)
def test_killed_at_random_moments_the_tables_are_the_same(work: Work, home: Path, server_url: str) -> None:
    draw, results = random.Random(7), home / work.results
    began = time.monotonic()
    process = start(home, work.words(home), server_url)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    seconds, expected = time.monotonic() - began, tables(results)
    assert sum(name.endswith("probabilities.parquet") for name in expected) == SLIDES
    interrupted = 0
    for number in range(KILLS):
        results.rename(home / f"finished-{number}")
        process = start(home, work.words(home), server_url)
        time.sleep(draw.uniform(0.3, 1) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        interrupted += process.returncode != 0
        again = start(home, work.words(home), server_url)
        output, _ = again.communicate(timeout=300)
        assert again.returncode == 0, output
        assert tables(results) == expected
        assert not [path for path in (home / "cache").rglob("*") if path.is_file() and "work" in path.parts]
    assert interrupted


def break_slide(kind: str, path: Path, composed: Composed) -> str:
    """Write a slide that is broken in some way; the words that its reason has to contain."""
    if kind == "no slide":
        path.write_text("no slide")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no scale":
        write_slide(path, composed.pixels, None)
    elif kind == "small":
        write_slide(path, composed.pixels[:90])
    elif kind == "cut":
        write_slide(path, composed.pixels, levels=1)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        write_slide(path, composed.pixels, levels=1, compression="zlib")
        content = bytearray(path.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
        path.write_bytes(content)
    return {
        "no scale": "does not tell its pixel size",
        "small": "a patch has 96 x 96",
        "damaged": "the file is damaged, copy it again",
    }.get(kind, "OpenSlide cannot read it")


@pytest.mark.timeout(600)
def test_of_60_slides_6_are_broken_in_different_ways(model_folder: Path, composed: Composed, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(54):
        write_slide(tmp_path / "in" / f"good-{number}.tif", composed.pixels[: 200 + number])
    kinds = ("no slide", "empty", "no scale", "small", "cut", "damaged")
    words = {kind: break_slide(kind, tmp_path / "in" / f"{kind}.tif", composed) for kind in kinds}
    process = start(
        tmp_path, [COMMAND, "slides", str(model_folder), "in", "--out", "out", "--no-tta", "--stride", "96"], ""
    )
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert "6 of 60 slides could not be predicted" in output
    with (tmp_path / "out" / "slides.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert len(rows) == 60
    assert {name: row["reason"] for name, row in rows.items() if name.startswith("good") and row["reason"]} == {}
    for kind in kinds:
        assert words[kind] in rows[kind]["reason"], kind
