"""Resident memory of training that streams its patches from a file: flat, however many there are.

    python -m benchmarks.memory [--counts 20000 200000] [--steps 60]

Each count runs in a process of its own: a whole pass over the patches as batches, with training steps in between, from
a file of the pack's format (sparse, so that it takes no room on the disk).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import write_result
from pcam_model.core.rng import StepKey
from pcam_model.data.augment import ViewConfig
from pcam_model.data.mmap_reader import MmapReader
from pcam_model.data.patch_loader import make_loader
from pcam_model.training.batch import BatchSource, BatchSpec
from pcam_model.training.device import ComputeConfig, best_device, tune_malloc
from pcam_model.training.network import ModelConfig, build_network
from pcam_model.training.optimizer import layer_lr_multipliers
from pcam_model.training.step import train_step
from pcam_model.training.train_state import create_train_state

BATCH, SIZE = 64, 96


def sparse(path: Path, count: int) -> np.memmap:
    """A .npy file of zero patches, (count, 96, 96, 3), that takes no room."""
    return np.lib.format.open_memmap(path, "w+", np.uint8, (count, SIZE, SIZE, 3))


def resident() -> dict[str, float]:
    """This process's memory, in MB: all of it, and what of it are pages of files."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) / 1024 for name, key in (("resident", "VmRSS"), ("of files", "RssFile"))}


def peak_resident(count: int, steps: int) -> dict[str, float]:
    """The highest resident memory in one pass, in MB."""
    tune_malloc()
    device = best_device()
    with tempfile.TemporaryDirectory() as folder:
        sparse(Path(folder) / "patches.npy", count).flush()
        array = np.load(Path(folder) / "patches.npy", mmap_mode="r", allow_pickle=False)
        loader = make_loader(MmapReader(array, device), np.arange(count), np.arange(count) % 2, SIZE, device)
        network = build_network(ModelConfig(arch="mobilenet_v2", weights="none", image_size=SIZE), 0, quiet=True)
        state = create_train_state(network.to(device).train(), layer_lr_multipliers(10), device, ComputeConfig())
        source, order, peak = BatchSource(loader, network), loader.epoch_order(0, 1, 0), dict[str, float]()
        every = max(1, count // BATCH // steps)
        for k, start in enumerate(range(0, count - BATCH + 1, BATCH)):
            which = order[start : start + BATCH]
            if k % every == 0:
                spec = BatchSpec.whole(which, StepKey(0, 1, 0, k), ViewConfig(SIZE))
                train_step(state, source.batch(spec), 1e-4, 0.9)
                peak = {name: max(value, peak.get(name, 0)) for name, value in resident().items()}
            else:
                loader.gather(which)
            loader.prefetch(order[start + BATCH : start + 2 * BATCH])
    return {name: round(value, 1) for name, value in peak.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=[20_000, 200_000])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(peak_resident(args.one, args.steps)))
        return
    figures: dict[str, object] = {"unit": "MB", "threads": torch.get_num_threads()}
    peaks = []
    for count in args.counts:
        command = [sys.executable, "-m", "benchmarks.memory", "--one", str(count), "--steps", str(args.steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        figures[f"{count:,} patches"] = result
        peaks.append(result["resident"])
        print(count, result, flush=True)
    figures["growth"] = round(peaks[-1] / peaks[0] - 1, 4)
    counts = " ".join(map(str, args.counts))
    write_result("memory", f"python -m benchmarks.memory --counts {counts} --steps {args.steps}", figures)


if __name__ == "__main__":
    main()
