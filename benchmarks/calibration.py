"""What calibration is worth on stains that neither training nor calibration saw, beside what it costs.

    python -m benchmarks.calibration --patches train.zip --weights WEIGHTS [--seeds 2 3 4] [--train 4000] [--held 2000]

Slides are not known, so clusters of like stain stand for them: a fifth of the clusters is held out, another tenth and a
random part of the rest are two validation parts, as large as each other. Each seed draws the clusters anew, trains a
MobileNetV2 for each way of training, and calibrates it in each way on each part; `jittered` parts have their stains
changed at random. Figures are means over the seeds, with intervals by bootstrap over the held-out clusters, and changes
from what a random validation part gives; seconds are the processor's, of training and of calibrating.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.beside_fastai import packed
from benchmarks.calibration_methods import METHODS, Outputs, figures, with_intervals
from benchmarks.held_out_clusters import Array, Data, Rows, draw_parts, read_data
from benchmarks.machine import write_result
from benchmarks.quality import train_network
from pcam_model.core.rng import BatchSlice, generator
from pcam_model.data.patch_loader import normalise
from pcam_model.data.stain import draw_stain_maps, restain
from pcam_model.data.stain_moments import stain_moments
from pcam_model.evaluation.drift_reference import features_and_logits
from pcam_model.training.network import ModelConfig, PatchNetwork
from pcam_model.training.stage import FinetuneConfig, Stage

TRAININGS: dict[str, dict[str, float]] = {
    "label_smoothing=0": {"label_smoothing": 0},
    "label_smoothing=0.05": {"label_smoothing": 0.05},
    "label_smoothing=0.1": {"label_smoothing": 0.1},
}
FINETUNE: dict[str, Any] = {"epochs": 3, "batch_size": 64, "lr": 5e-3, "stain_jitter": 0.1, "max_grad_norm": 1}
REFERENCE = ("label_smoothing=0.05", "random", "temperature")
JITTER, JITTER_SEED, BATCH = 0.2, 2, 128


@torch.inference_mode()
def outputs_of(network: PatchNetwork, data: Data, rows: NDArray[np.int64], jitter: float = 0) -> Outputs:
    """The outputs of a network in evaluation mode for some rows, their stains changed by up to `jitter`."""
    loader = data.loader(rows)
    log_odds, features, moments = list[Array](), list[Array](), list[Array]()
    for number, start in enumerate(range(0, len(rows), BATCH)):
        positions = torch.arange(start, min(start + BATCH, len(rows)))
        patches = loader.gather(positions)
        if jitter:
            whole = BatchSlice(0, len(positions), len(positions))
            patches = restain(patches, draw_stain_maps(jitter, generator(JITTER_SEED, number), whole))
        some, logits = features_and_logits(network.eval(), normalise(patches, 96))
        log_odds.append((logits[:, 1] - logits[:, 0]).double().numpy())
        features.append(some.numpy())
        moments.append(stain_moments(patches.numpy()))
    return Outputs(
        data.labels[rows],
        np.concatenate(log_odds),
        np.concatenate(features),
        np.concatenate(moments),
        data.clusters[rows],
    )


def try_seed(data: Data, weights: str, rows: Rows, seed: int) -> dict[tuple[str, str, str], Any]:
    """The calibrated outputs for the held-out clusters, by way of training, validation part and method."""
    found = dict[tuple[str, str, str], Any]()
    config = ModelConfig.model_validate({"arch": "mobilenet_v2", "weights": weights, "image_size": 96})
    for training, keys in TRAININGS.items():
        began = time.process_time()
        stage = Stage(name="finetune", config=FinetuneConfig.model_validate(FINETUNE | keys))
        network = train_network(config, [stage], data.loader(rows["train"]), data.loader(rows["random"]), seed)
        trained = time.process_time() - began
        known, held = outputs_of(network, data, rows["train"][:2000]), outputs_of(network, data, rows["held"])
        for part in ("random", "cluster"):
            for title, jitter in ((part, 0.0), (f"{part}, jittered", JITTER)):
                began = time.process_time()
                valid = outputs_of(network, data, rows[part], jitter)
                read = time.process_time() - began
                for method, calibrate in METHODS.items():
                    began = time.process_time()
                    calibrated = calibrate(known, valid, held)
                    seconds = time.process_time() - began + read
                    found[training, title, method] = calibrated, {"training": trained, "calibrating": seconds}
        print(seed, training, figures(held.labels, *found[training, "cluster", "temperature"][0]), flush=True)
    return found | {("", "", ""): held}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=Path, required=True)
    parser.add_argument("--weights", required=True, help="of MobileNetV2's body")
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--held", type=int, default=2000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[2, 3, 4])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = read_data(packed(args.patches, Path(folder)))
        runs = []
        for seed in args.seeds:
            rows = draw_parts(data, seed, args.train, args.held)
            runs.append(try_seed(data, args.weights, rows, seed))
    command = "python -m benchmarks.calibration --patches train.zip --weights WEIGHTS"
    command += f" --train {args.train} --held {args.held} --seeds {' '.join(map(str, args.seeds))}"
    table = with_intervals(runs, REFERENCE)
    write_result("calibration", command, {"clusters": int(data.clusters.max()) + 1, "table": table})


if __name__ == "__main__":
    main()
