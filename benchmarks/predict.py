"""`pcam predict` by each backend beside the bare forward pass, and its memory, on real patches and a trained network.

    python -m benchmarks.predict --patches PATCHES.zip --model MODEL [--limit 3000] [--rounds 3]

MODEL is a run, a channel or a folder (`pcam train --preset quick` makes one). A bare pass sees one
resident batch, decoded beforehand (for torch resized and normalised too, as model.onnx does itself); all take turns, in
float32. "predict" is what `pcam predict` does unless it is told otherwise; "with spinning threads" is onnxruntime as it
comes. All are measured on cores of their own, and beside a second process that multiplies matrices on all cores. Memory
is the peak of the whole command, on the first 2,000 and the first 20,000 (--memory) patches.
"""

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.compose_slide import read_patches
from benchmarks.machine import write_result
from pcam_model.core.errors import ConfigError
from pcam_model.core.model_metadata import ONNX_FILE
from pcam_model.core.onnx_runtime import import_onnxruntime
from pcam_model.data.image_inputs import Images
from pcam_model.data.patch_loader import normalise
from pcam_model.inference.backends import Backend, OnnxBackend, TorchBackend
from pcam_model.inference.predictor import Predictor, load
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


def peak_memory(model: str, store: str, patches: Path, count: int) -> float:
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
        arguments += ["--store", store] if store else []
        done = subprocess.run([sys.executable, "-c", PEAK_MEMORY_SCRIPT, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pcam {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return round(int(done.stderr.split()[-2]) / 1024, 1)


@contextmanager
def second_load() -> Iterator[None]:
    """Another process that computes on all cores."""
    code = "import numpy as np\na = np.ones((1500, 1500))\nwhile True: a @ a"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(1)
        yield
    finally:
        process.kill()
        process.wait()


def rates(predictors: dict[str, Predictor], images: Images, first: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Seconds a patch of each, in turns."""
    batches = math.ceil(len(images) / len(first))
    took: dict[str, list[float]] = {name: [] for name in predictors}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "predictions.csv")
        for _ in range(rounds):
            for name, predictor in predictors.items():
                if name.startswith("bare"):
                    spent = measure_seconds(partial(bare, predictor.backend, first, batches)) / (batches * len(first))
                else:
                    spent = measure_seconds(partial(predict_to_csv, out, predictor, images)) / len(images)
                took[name].append(spent)
    return took


def spinning(predictor: Predictor) -> Predictor:
    """A predictor of onnxruntime whose idle threads spin, as is its default."""
    path = Path(predictor.model.folder, ONNX_FILE)
    backend = OnnxBackend(path.parent)
    backend.session = import_onnxruntime("this").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return Predictor(backend, predictor.backend_choice, predictor.tta)


def differences(
    predictors: dict[str, Predictor], pixels: np.ndarray, labels: np.ndarray
) -> dict[str, dict[str, float]]:
    """The largest difference of a logit to torch's, and the AUC, of each."""
    expected = predictors["torch"].logits(pixels)
    found = {name: predictor.logits(pixels) for name, predictor in predictors.items()}
    return {
        name: {
            "largest_difference_of_a_logit": float(np.abs(logits - expected).max()),
            "auc": round(float(roc_auc_score(labels, logits[:, 1] - logits[:, 0])), 6),
        }
        for name, logits in found.items()
    }


def open_bfloat16(open_model: Callable[..., Predictor]) -> Predictor | None:
    """The predictor in bfloat16; None, and a line, where the CPU has none."""
    try:
        return open_model(backend="openvino", precision="bfloat16")
    except ConfigError as error:
        print(f"bfloat16 is not measured: {error}", flush=True)
        return None


def summary(took: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Patches a second, and the shares of the bare forward passes and of the default."""
    default = statistics.median(took["predict"])
    return {
        "patches_per_second": {name: round(1 / statistics.median(some), 1) for name, some in took.items()},
        "of_predict": {name: round(default / statistics.median(some), 3) for name, some in took.items()},
        "share_of_the_bare_forward_pass": {
            "predict beside torch's": share(took, "bare torch", "predict"),
            "predict beside its own backend's": share(took, "bare onnx", "predict"),
            "predict --backend torch beside torch's": share(took, "bare torch", "predict --backend torch"),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", required=True, type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--store", default="")
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", nargs=2, type=int, default=[2_000, 20_000])
    args = parser.parse_args()
    FirstImages.limit = args.limit
    images = FirstImages([args.patches])
    open_model = partial(load, args.model, store=args.store, tta=False)
    torch_, onnx, openvino = (open_model(backend=name) for name in ("torch", "onnx", "openvino"))
    fast = open_bfloat16(open_model)
    pixels, all_labels = read_patches(args.patches)
    spread = np.linspace(0, len(pixels) - 1, len(images)).astype(int)  # the archive may be sorted by class
    pixels, labels = pixels[spread], all_labels[spread]
    predictors = {
        "bare torch": torch_, "bare onnx": onnx, "bare openvino": openvino,
        "predict": open_model(backend="auto"), "predict, with spinning threads": spinning(onnx),
        "predict --backend torch": torch_, "predict --backend openvino": openvino,
        **({"bare openvino, bfloat16": fast, "predict --precision bfloat16": fast} if fast else {}),
    }  # fmt: skip
    first = pixels[: torch_.backend.batch_size]
    alone = summary(rates(predictors, images, first, args.rounds))
    with second_load():
        shared = summary(rates(predictors, images, first, args.rounds))
    memory = {f"{count:,} patches": peak_memory(args.model, args.store, args.patches, count) for count in args.memory}
    small, large = memory.values()
    write_result(
        f"predict_{torch_.model.arch}_{torch_.model.image_size}",
        f"python -m benchmarks.predict --patches {args.patches.name} --model MODEL --limit {args.limit}",
        {
            "network": f"{torch_.model.arch} at {torch_.model.image_size} px, batch {torch_.backend.batch_size}",
            "patches": len(images),
            "predict_computes_by": predictors["predict"].backend_choice.name,
            **alone,
            "beside_a_second_load": shared,
            "logits": differences(
                {"torch": torch_, "onnx": onnx, "openvino": openvino} | ({"openvino, bfloat16": fast} if fast else {}),
                pixels,
                labels,
            ),
            "peak_memory_mb": memory,
            "growth_of_memory": round(large / small - 1, 4),
        },
    )


def share(took: dict[str, list[float]], bare: str, whole: str) -> float:
    """The rate of `whole` as a share of that of `bare`, the median over the rounds."""
    return round(statistics.median(b / w for b, w in zip(took[bare], took[whole], strict=True)), 3)


if __name__ == "__main__":
    main()
