"""`pcam predict` beside the bare forward pass, ONNX beside torch, and memory, on real patches and a trained network.

    python -m benchmarks.predict --patches ../shared/data/pcam/train.zip --model MODEL [--limit 3000] [--rounds 3]

MODEL is a run, a channel or a folder (`pcam train --preset quick` makes one). A bare pass sees one
resident batch, decoded beforehand (for torch resized and normalised too, as model.onnx does itself); all take turns, in
float32. "predict" is what `pcam predict` does unless it is told otherwise. Memory is the peak of the whole command, on
the first 2,000 and the first 20,000 (--memory) patches.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import write_result
from pcam_model.data.image_inputs import Images
from pcam_model.data.patch_loader import normalise
from pcam_model.inference.backends import Backend, TorchBackend
from pcam_model.inference.predictor import load
from pcam_model.inference.streaming import predict_to_csv

# The kernel's own peak of this program: that of `resource` begins with the peak of the process that started it.
PEAK_MEMORY_SCRIPT = """
import sys
from pcam_model.cli.main import main
try:
    main()
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""


class FirstImages(Images):
    """The first `limit` images of the inputs."""

    limit = 0

    def __len__(self) -> int:
        return min(self.limit, super().__len__())


def measure_seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bare(runtime: Backend, patches: np.ndarray, batches: int) -> None:
    """So many batches through the network, and nothing else."""
    if isinstance(runtime, TorchBackend):
        images = normalise(torch.from_numpy(patches).to(runtime.device), runtime.model.image_size)
        with torch.inference_mode():
            for _ in range(batches):
                runtime.network(images).cpu()
    else:
        for _ in range(batches):
            runtime(patches, tta=False)


def peak_memory(model: str, patches: Path, count: int) -> float:
    """The peak resident memory of `pcam predict` on the first so many patches, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder, "few.zip")
        with zipfile.ZipFile(patches) as all_of_them, zipfile.ZipFile(few, "w") as some:
            images = [name for name in all_of_them.namelist() if name.endswith((".jpg", ".tif", ".png"))][:count]
            if len(images) < count:
                raise SystemExit(f"{patches} holds {len(images):,} patches, --memory asks for {count:,}")
            for name in images:
                some.writestr(name, all_of_them.read(name))
        arguments = ["predict", model, str(few), "--no-tta", "--out", str(Path(folder, "predictions.csv"))]
        done = subprocess.run([sys.executable, "-c", PEAK_MEMORY_SCRIPT, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pcam {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return round(int(done.stderr.split()[-2]) / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", required=True, type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", nargs=2, type=int, default=[2_000, 20_000])
    args = parser.parse_args()
    FirstImages.limit = args.limit
    images, default = FirstImages([args.patches]), load(args.model, backend="auto", tta=False)
    ours, onnx = (load(args.model, backend=name, tta=False) for name in ("torch", "onnx"))
    pixels = np.stack([images.patch(row) for row in range(len(images))])
    difference = float(np.abs(ours.logits(pixels) - onnx.logits(pixels)).max())
    batches = -(-len(images) // ours.backend.batch_size)
    first = pixels[: ours.backend.batch_size]
    works = {"bare torch": ours, "bare onnx": onnx, "predict": default, "predict --backend torch": ours}
    took: dict[str, list[float]] = {name: [] for name in works}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "predictions.csv")
        for _ in range(args.rounds):
            for name, predictor in works.items():
                if name.startswith("bare"):
                    spent = measure_seconds(partial(bare, predictor.backend, first, batches)) / (batches * len(first))
                else:
                    spent = measure_seconds(partial(predict_to_csv, out, predictor, images)) / len(images)
                took[name].append(spent)
    memory = {f"{count:,} patches": peak_memory(args.model, args.patches, count) for count in args.memory}
    small, large = memory.values()
    about = ours.model
    write_result(
        "predict",
        f"python -m benchmarks.predict --patches {args.patches.name} --model MODEL --limit {args.limit}",
        {
            "network": f"{about.arch} at {about.image_size} px, float32, batch {ours.backend.batch_size}",
            "patches": len(images),
            "predict_computes_by": default.backend_choice.name,
            "patches_per_second": {name: round(1 / statistics.median(some), 1) for name, some in took.items()},
            "share_of_the_bare_forward_pass": {
                "predict beside torch's": share(took, "bare torch", "predict"),
                "predict beside its own runtime's": share(took, f"bare {default.backend_choice.name}", "predict"),
                "predict --backend torch beside torch's": share(took, "bare torch", "predict --backend torch"),
            },
            "largest_difference_of_a_logit_onnx_torch": difference,
            "peak_memory_mb": memory,
            "growth_of_memory": round(large / small - 1, 4),
        },
    )


def share(took: dict[str, list[float]], bare: str, whole: str) -> float:
    """The rate of `whole` as a share of that of `bare`, the median over the rounds."""
    return round(statistics.median(b / w for b, w in zip(took[bare], took[whole], strict=True)), 3)


if __name__ == "__main__":
    main()
