"""TIAToolbox's side of a comparison: a network over a slide as its users run it, in an environment of its own.

    PYTHON benchmarks/tiatoolbox_side.py --slide SLIDE.tif --stride 96 --workers 0

Prints one JSON: seconds and patches of `PatchPredictor.run`, from the slide to probabilities on the disk, and the
version. The network is MobileNetV2 with random weights, which take the time of any others. `benchmarks.slides` starts
it and says how the environment is made.
"""

import argparse
import importlib.metadata
import json
import tempfile
import time
import warnings
from pathlib import Path

import zarr  # type: ignore[import-not-found,unused-ignore]
from tiatoolbox.models import IOPatchPredictorConfig  # type: ignore[import-not-found]
from tiatoolbox.models.architecture.vanilla import CNNModel  # type: ignore[import-not-found]
from tiatoolbox.models.engine.patch_predictor import PatchPredictor  # type: ignore[import-not-found]
from torchvision.transforms.functional import to_tensor

MPP, SIZE, BATCH = 0.972, 96, 64


def predict(slide: Path, stride: int, workers: int) -> dict[str, float | str]:
    """Predict a slide's tissue, which TIAToolbox finds by itself."""
    network = CNNModel("mobilenet_v2", num_classes=2)
    network.preproc_func = lambda patch: to_tensor(patch).permute(1, 2, 0)
    predictor = PatchPredictor(network, batch_size=BATCH, num_workers=workers, device="cpu", verbose=False)
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": MPP}],
        patch_input_shape=[SIZE, SIZE],
        stride_shape=[stride, stride],
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        written = predictor.run(
            [slide], patch_mode=False, ioconfig=config, save_dir=Path(folder, "out"), output_type="zarr",
            return_probabilities=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        (path,) = written.values()
        patches = zarr.open(str(path), mode="r")["probabilities"].shape[0]
    return {"seconds": seconds, "patches": patches, "version": importlib.metadata.version("tiatoolbox")}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--stride", type=int, default=96)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(json.dumps(predict(args.slide, args.stride, args.workers)))


if __name__ == "__main__":
    main()
