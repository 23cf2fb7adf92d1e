"""`pcam slides` beside `pcam predict`, its memory, and the time that a whole slide takes, on slides of real patches.

    python -m benchmarks.slides MODEL PATCHES.zip [--store URI] [--rounds 3] [--scale 1] [--tiatoolbox TIA/bin/python]

Needs `pip install imagecodecs`, and for the comparison `python -m venv TIA; TIA/bin/pip install tiatoolbox==2.1.3`.
PATCHES is a Kaggle archive with its labels. The rate of `pcam slides` is that of all it does to a slide, beside that of
`pcam predict` on the archive, in turns. Memory is the peak of the whole command: one slide and many, a small one and
one of 60,000 x 60,000 pixels with the same tissue. The whole slide has Camelyon's size at 10x, 25,000 x 50,000 pixels,
12 % of them tissue; TIAToolbox predicts it with the same architecture at a stride of 96, without and with workers.
`iou` is of the outlines with the squares of the patches that have tumour in their middle. `--scale 0.1` makes all
lengths a tenth.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from shapely import box, unary_union
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from benchmarks.compose_slide import SIZE, Layout, Patches, lay_out, read_patches, write_slide
from benchmarks.machine import write_result
from benchmarks.predict import PEAK_MEMORY_SCRIPT
from pcam_model.data.image_inputs import Images
from pcam_model.inference.predictor import Predictor, load
from pcam_model.inference.streaming import predict_to_csv
from pcam_model.slides.batch import predict_slides
from pcam_model.slides.listing import find_slides
from pcam_model.slides.outlines import GEOJSON
from pcam_model.slides.prediction import SlideModel
from pcam_model.slides.records import SlideOptions

MANY = 100
TIATOOLBOX_SCRIPT = Path(__file__).with_name("tiatoolbox_side.py")


def embedded(layout: Layout, rows: int, columns: int) -> Layout:
    """The same tissue in the middle of a larger slide."""
    larger = np.full((rows, columns), -1)
    top, left = (rows - layout.shape[0]) // 2, (columns - layout.shape[1]) // 2
    larger[top : top + layout.shape[0], left : left + layout.shape[1]] = layout
    return larger


class Predicted(NamedTuple):
    """A slide that was predicted."""

    patches: int
    seconds: float
    tumour: BaseGeometry
    """The outlines of tumour, in pixels of level 0."""


def predict_once(slide: Path, predictor: Predictor, stride: int) -> Predicted:
    """Predict a slide, from the file to all results."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        model = SlideModel(predictor, SlideOptions(stride=stride))
        (result,) = predict_slides(find_slides([slide]), model, Path(out)).results
        seconds = time.perf_counter() - began
        outlines = json.loads(Path(out, slide.stem, GEOJSON).read_text())["features"]
    return Predicted(result.patches, seconds, unary_union([shape(one["geometry"]) for one in outlines]))


def composed_tumour(layout: Layout, labels: Any) -> BaseGeometry:
    """The squares of a composed slide's patches with tumour, in pixels of level 0."""
    rows, columns = np.nonzero((layout >= 0) & (labels[layout] == 1))
    return unary_union([box(x, y, x + SIZE, y + SIZE) for y, x in zip(rows * SIZE, columns * SIZE, strict=True)])


def iou(first: BaseGeometry, second: BaseGeometry) -> float:
    """Intersection over union of two areas."""
    return round(float(first.intersection(second).area / first.union(second).area), 3)


def patches_per_second(slide: Path, archive: Path, predictor: Predictor, rounds: int) -> dict[str, Any]:
    """Rates of both commands in turns, and the median of their ratios."""
    images = Images([archive])
    rates: dict[str, list[float]] = {"pcam predict": [], "pcam slides": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            began = time.perf_counter()
            predict_to_csv(Path(folder, "predictions.csv"), predictor, images)
            rates["pcam predict"].append(len(images) / (time.perf_counter() - began))
            predicted = predict_once(slide, predictor, 32)
            rates["pcam slides"].append(predicted.patches / predicted.seconds)
    ratios = [ours / other for ours, other in zip(rates["pcam slides"], rates["pcam predict"], strict=True)]
    return {name: round(statistics.median(found), 1) for name, found in rates.items()} | {
        "ratio": round(statistics.median(ratios), 3)
    }


def peak_memory(model: str, store: str, slides: Path) -> float:
    """The peak resident memory of `pcam slides` on a folder, in MB."""
    with tempfile.TemporaryDirectory() as out:
        words = ["slides", model, str(slides), "--out", out, "--stride", "96", *(["--store", store] if store else [])]
        done = subprocess.run([sys.executable, "-c", PEAK_MEMORY_SCRIPT, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pcam {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return round(int(done.stderr.split()[-2]) / 1024, 1)


def memory(model: str, store: str, patches: Patches, labels: Any, scale: float) -> dict[str, float]:
    """Peaks in MB: of one small slide, of many, and of a large slide with the same tissue."""
    small = lay_out(labels, 1000, 1000, 0.5)
    side = max(int(60_000 * scale) // SIZE, small.shape[0])
    layouts = {"1 slide of 1,000 x 1,000": (small, 1), f"{MANY} slides of 1,000 x 1,000": (small, MANY)}
    layouts[f"1 slide of {side * SIZE:,} x {side * SIZE:,}"] = (embedded(small, side, side), 1)
    found = {}
    for name, (layout, count) in layouts.items():
        with tempfile.TemporaryDirectory() as folder:
            write_slide(Path(folder, "0.tif"), patches, layout)
            for number in range(1, count):
                Path(folder, f"{number}.tif").write_bytes(Path(folder, "0.tif").read_bytes())
            found[name] = peak_memory(model, store, Path(folder))
    return found


def beside_tiatoolbox(python: str, slide: Path, rate: float) -> dict[str, Any]:
    """What TIAToolbox takes for a slide, by its workers, and our rate as a multiple of its best."""
    found, rates = dict[str, Any](), []
    for workers in (0, os.cpu_count() or 1):
        words = [python, str(TIATOOLBOX_SCRIPT), "--slide", str(slide), "--workers", str(workers)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
        answer = json.loads(done.stdout.splitlines()[-1])
        found["version"] = answer["version"]
        found[f"{workers} workers"] = {"patches": answer["patches"], "seconds": round(answer["seconds"], 1)}
        rates.append(answer["patches"] / answer["seconds"])
    return found | {"pcam_slides_as_a_multiple_of_the_best": round(rate / max(rates), 2)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("patches", type=Path)
    parser.add_argument("--store", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--tiatoolbox", default="", help="the Python of an environment with TIAToolbox")
    args = parser.parse_args()
    patches, labels = read_patches(args.patches)
    predictor = load(args.model, store=args.store, backend="auto", tta=False)
    lay = partial(lay_out, labels)
    with tempfile.TemporaryDirectory() as folder:
        part, whole = Path(folder, "part.tif"), Path(folder, "whole.tif")
        write_slide(part, patches, lay(int(8000 * args.scale), int(8000 * args.scale), 0.2))
        layout = lay(int(25_000 * args.scale), int(50_000 * args.scale), 0.12)
        write_slide(whole, patches, layout)
        rates = patches_per_second(part, args.patches, predictor, args.rounds)
        took = {f"stride {stride}": predict_once(whole, predictor, stride) for stride in (96, 32)}
        rate = took["stride 96"].patches / took["stride 96"].seconds
        beside = beside_tiatoolbox(args.tiatoolbox, whole, rate) if args.tiatoolbox else None
    tumour = composed_tumour(layout, labels)
    write_result(
        "slides",
        f"python -m benchmarks.slides MODEL {args.patches.name}",
        {
            "network": f"{predictor.model.arch} at {predictor.model.image_size} px, by {predictor.backend_choice.name}",
            "patches_per_second": rates,
            "whole_slide": {
                name: {"patches": one.patches, "seconds": round(one.seconds, 1), "iou": iou(one.tumour, tumour)}
                for name, one in took.items()
            },
            **({"tiatoolbox": beside} if beside else {}),
            "peak_memory_mb": memory(args.model, args.store, patches, labels, args.scale),
        },
    )


if __name__ == "__main__":
    main()
