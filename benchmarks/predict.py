"""`pcam predict` beside the bare forward pass, and ONNX beside torch, on real patches and a network with real weights.

    python -m benchmarks.predict --patches ../shared/data/pcam/valid.zip --model MODEL [--limit 1000] [--rounds 3]

MODEL is a run, a channel or a folder (`pcam train` with deployments/plans/quick.yaml makes one). The bare pass
sees one resident batch, decoded, resized and normalised beforehand; both take turns, in float32.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import write_result
from pcam_model.data.batches import normalise
from pcam_model.data.images import Images
from pcam_model.predictions import predict_to
from pcam_model.predictor import load
from pcam_model.runtimes import TorchRuntime


class First(Images):
    """The first so many images of a place."""

    most = 0

    def __len__(self) -> int:
        return min(self.most, super().__len__())


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bare(runtime: TorchRuntime, patches: np.ndarray, batches: int) -> None:
    images = normalise(torch.from_numpy(patches).to(runtime.device), runtime.model.size)
    with torch.inference_mode():
        for _ in range(batches):
            runtime.network(images).cpu()


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--patches", required=True, type=Path)
    words.add_argument("--model", required=True)
    words.add_argument("--limit", type=int, default=1000)
    words.add_argument("--rounds", type=int, default=3)
    asked = words.parse_args()
    First.most = asked.limit
    images, predictor = First([asked.patches]), load(asked.model, tta=False)
    onnx, runtime = load(asked.model, runtime="onnx", tta=False), predictor.runtime
    assert isinstance(runtime, TorchRuntime)
    pixels = np.stack([images.patch(row) for row in range(len(images))])
    difference = float(np.abs(predictor.logits(pixels) - onnx.logits(pixels)).max())
    batches = -(-len(images) // runtime.batch)
    first = pixels[: runtime.batch]
    took: dict[str, list[float]] = {"bare": [], "predict": [], "predict by onnx": []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "predictions.csv")
        for _ in range(asked.rounds):
            took["bare"].append(seconds(lambda: bare(runtime, first, batches)))
            took["predict"].append(seconds(lambda: predict_to(out, predictor, images)))
            took["predict by onnx"].append(seconds(lambda: predict_to(out, onnx, images)))
    seen = {"bare": batches * len(first), "predict": len(images), "predict by onnx": len(images)}
    rates = {name: round(statistics.median(seen[name] / one for one in some), 1) for name, some in took.items()}
    shares = [seen["predict"] / b * a / seen["bare"] for a, b in zip(took["bare"], took["predict"], strict=True)]
    about = predictor.model
    write_result(
        "predict",
        f"python -m benchmarks.predict --patches {asked.patches.name} --model MODEL --limit {asked.limit}",
        {
            "network": f"{about.architecture} at {about.size} px, float32, batch {runtime.batch}",
            "patches": len(images),
            "patches_per_second": rates,
            "share_of_the_bare_forward_pass": round(statistics.median(shares), 3),
            "largest_difference_of_a_logit_onnx_torch": difference,
        },
    )


if __name__ == "__main__":
    main()
