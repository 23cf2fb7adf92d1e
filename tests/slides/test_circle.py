"""The circle: annotated slides, patches, a model, outlines on slides, and patches of these outlines again."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pcam_model.data.pack import build_pack, load_table
from pcam_model.data.source import SourceConfig
from pcam_model.slides.slide_source import open_slide_patches, slides_archive
from tests.slides.slide_files import Composed, compose, write_slide
from tests.slides.test_slide_source import centres, geojson

pytest.importorskip("openslide", reason="needs pcam[slides]")
pytestmark = [pytest.mark.slow, pytest.mark.e2e]

ROOT = Path(__file__).parents[2]
SLIDES = 5
KEYS = {
    "model": {"weights": "none", "arch": "resnet18", "image_size": 64},
    "frozen": {"epochs": 1, "batch_size": 16, "lr": 1e-3},
    "finetune": {"epochs": 6, "batch_size": 16, "lr": 3e-3},
}


def pcam(home: Path, *words: object) -> None:
    environment = os.environ | {
        "PCAM_CACHE": str(home / "cache"),
        "PCAM_STORE": (home / "store").as_uri(),
        "PREFECT_HOME": str(home / "prefect"),
    }
    command = [sys.executable, "-m", "pcam_model", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def contrasted(seed: int) -> Composed:
    """A composed slide whose tumour is darker in the centre, so that a small network learns it in seconds."""
    made = compose(rows=5, columns=5, seed=seed)
    for x, y in centres(made, 1):
        made.pixels[y : y + 32, x : x + 32] //= 2
    return made


def patches_of(folder: Path, annotations: Path, home: Path) -> dict[str, int]:
    """The label of each patch that a source of slides gives, by its id."""
    config = SourceConfig(kind="slides", path=str(folder), annotations=str(annotations), unannotated_slides="normal")
    archive = slides_archive(config, 2, "")
    pack = build_pack(archive, config, home / "packs", 2, open_slides=open_slide_patches)
    table = load_table(pack)
    return dict(zip(table["id"], table["label"].astype(int), strict=True))


def test_outlines_of_a_model_that_learned_from_slides_are_annotations_again(tmp_path: Path) -> None:
    folder, annotations, found = (tmp_path / name for name in ("slides", "annotations", "found"))
    for made in (folder, annotations, found):
        made.mkdir()
    composed = [contrasted(seed) for seed in range(SLIDES)]
    for number, each in enumerate(composed):
        write_slide(folder / f"s{number}.tif", each.pixels)
        geojson(annotations / f"s{number}.geojson", centres(each, 1))
    stages = [f"{section}.{key}={value}" for section, keys in KEYS.items() for key, value in keys.items()]
    source = ["source.kind=slides", f"source.path={folder}", f"source.annotations={annotations}"]
    settings = [word for setting in (*source, "split.valid=0.2", *stages) for word in ("--set", setting)]
    pcam(tmp_path, "train", *settings, "--run", "circle")
    pcam(tmp_path, "slides", "circle", folder, "--out", tmp_path / "heatmaps", "--no-tta")
    for number in range(SLIDES):
        outlines = tmp_path / "heatmaps" / f"s{number}" / "tumour.geojson"
        (found / f"s{number}.geojson").write_bytes(outlines.read_bytes())
    true, again = patches_of(folder, annotations, tmp_path), patches_of(folder, found, tmp_path)
    both = sorted(set(true) & set(again))
    agreement = np.mean([true[name] == again[name] for name in both])
    assert len(both) > 40
    assert agreement > 0.8, (agreement, len(both))
