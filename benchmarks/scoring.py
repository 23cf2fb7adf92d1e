"""Scoring beside the bare forward pass on one resident batch, its memory, and what the report takes on top.

    python -m benchmarks.scoring [--patches 20000] [--network mobilenet_v2] [--size 96]

The patches are generated and lie on disk, as a pack's do. Scoring and the bare pass take turns, a tenth of the patches
each time: a machine's drift hits both alike.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.machine import write_result
from pcam_model.data.patch_loader import PatchLoader, make_loader, on_device
from pcam_model.evaluation.evidence import Evidence
from pcam_model.evaluation.logits import predict_logits
from pcam_model.evaluation.predictions import SplitPredictions, predictions_table
from pcam_model.evaluation.report import write_report
from pcam_model.evaluation.report_schema import PackSummary, SplitSummary
from pcam_model.training.device import best_device, tune_malloc
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network
from pcam_model.training.validation import BATCH_SIZE

TURNS = 10


def some_patches(path: Path, count: int) -> np.ndarray:
    """A memory map of random patches, with a dark centre where the row is odd."""
    rng = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, 96, 96, 3))
    for start in range(0, count, 500):
        array[start : start + 500] = rng.integers(0, 256, array[start : start + 500].shape, dtype=np.uint8)
    array[1::2, 32:64, 32:64] //= 2
    array.flush()
    patches: np.ndarray = np.load(path, mmap_mode="r")
    return patches


def own_memory() -> float:
    """MB of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


@torch.inference_mode()
def bare(network: PatchNetwork, images: torch.Tensor, count: int) -> float:
    """Images a second over and over on one batch."""
    start = time.perf_counter()
    for _ in range(count):
        network(images).float().cpu()
    return count * len(images) / (time.perf_counter() - start)


def turns(network: PatchNetwork, loader: PatchLoader, rows: np.ndarray) -> tuple[dict[str, Any], torch.Tensor]:
    batch = BATCH_SIZE.get(loader.device.type, 64)
    images, result, logits, memory = loader.without_augmentation(0, batch), dict[str, list[float]](), [], []
    predict_logits(network, select(loader, rows[: 2 * batch]), tta=False)
    bare(network, images, 2)
    for chosen in np.array_split(rows, TURNS):
        here = select(loader, chosen)
        result.setdefault("bare", []).append(bare(network, images, max(1, len(chosen) // batch)))
        start = time.perf_counter()
        logits.append(predict_logits(network, here, tta=False)[1])
        result.setdefault("scoring", []).append(len(chosen) / (time.perf_counter() - start))
        memory.append(own_memory())
    shares = [one / other for one, other in zip(result["scoring"], result["bare"], strict=True)]
    figures = {
        "bare forward, patches/s": round(statistics.median(result["bare"]), 1),
        "scoring, patches/s": round(statistics.median(result["scoring"]), 1),
        "share of the bare rate": round(statistics.median(shares), 3),
        "memory after each tenth, MB": [round(each, 1) for each in memory],
    }
    return figures, torch.cat(logits)


def select(loader: PatchLoader, rows: np.ndarray) -> PatchLoader:
    return make_loader(loader.patches, rows, rows % 2, loader.image_size, loader.device)


def report_seconds(folder: Path, logits: torch.Tensor, rows: np.ndarray, slides: int) -> float:
    patch_table = pd.DataFrame({"id": [f"p{row:06d}" for row in rows], "label": rows % 2, "pixels": ""})
    patch_table["slide"] = [f"slide{row % slides:03d}" for row in rows] if slides else None
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    table = predictions_table(patch_table, rows, logits + noise)
    split = SplitSummary(meaning="generated patches", kind="slide")
    predictions = {"valid": SplitPredictions(table)}
    start = time.perf_counter()
    write_report(folder, Evidence("benchmark", config={}, pack=PackSummary(), split=split, predictions=predictions))
    return round(time.perf_counter() - start, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--network", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=96)
    args = parser.parse_args()
    tune_malloc()
    device, rows = best_device(), np.arange(args.patches)
    config = ModelConfig.model_validate({"arch": args.network, "weights": "none", "image_size": args.size})
    network = build_network(config, 0, quiet=True).to(device).eval()
    with tempfile.TemporaryDirectory() as folder:
        array = some_patches(Path(folder, "patches.npy"), args.patches)
        loader = make_loader(on_device(array, device), rows, rows % 2, args.size, device)
        figures, logits = turns(network, loader, rows)
        for over, slides in (("100 slides", 100), ("patches", 0)):
            figures[f"report, intervals over {over}, seconds"] = report_seconds(
                Path(folder, over), logits, rows, slides
            )
    about = {"patches": args.patches, "network": args.network, "size": args.size, "threads": torch.get_num_threads()}
    write_result("scoring", f"python -m benchmarks.scoring --patches {args.patches}", about | figures)


if __name__ == "__main__":
    main()
