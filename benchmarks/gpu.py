"""Training on a GPU: images a second, share of the bare step, peak memory, seconds for an epoch of Kaggle's 176,020.

    python -m benchmarks.gpu [--network resnet50 --size 224 --batches 64 128 256 512 1024 --seconds 10] [--compile]

Needs torch (2.11 or later), torchvision and the package's own dependencies, no Prefect. Runs on a processor too.
"""

import argparse

import torch

from benchmarks.fit import bare_rate, fit_rate, stage_of
from benchmarks.machine import write_result
from pcam_model.training.device import ComputeConfig, autocast_dtype, best_device

EPOCH = 176_020  # Kaggle's patches, less the fifth that validates


def measure(asked: argparse.Namespace, batch: int, title: str) -> dict[str, float | str]:
    stage, compute = stage_of(title, batch), ComputeConfig(checkpoint_seconds=1e9, compile=asked.compile)
    gpu = torch.cuda.is_available()
    try:
        bare = bare_rate(asked.network, asked.size, stage, asked.seconds)
        steps = max(6, round(bare * asked.seconds / batch))
        if gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        rate = fit_rate(asked.network, asked.size, stage, steps, compute)
    except torch.OutOfMemoryError as error:
        return {"out of memory": str(error).splitlines()[0]}
    found: dict[str, float | str] = {
        "images/s": round(rate, 1),
        "bare step, images/s": round(bare, 1),
        "share of the bare step": round(rate / bare, 3),
        f"seconds for {EPOCH:,} patches": round(EPOCH / rate, 1),
    }
    if gpu:
        found["peak memory, GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return found


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128, 256, 512, 1024])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--name", default="gpu", help="of the result in benchmarks/results")
    asked = parser.parse_args(words)
    figures: dict[str, object] = {
        "network": asked.network,
        "size": asked.size,
        "compiled": asked.compile,
        "numbers": str(autocast_dtype(best_device()) or torch.float32).removeprefix("torch."),
    }
    for batch in asked.batches:
        for title in ("frozen", "finetune"):
            figures[f"{title}, batch {batch}"] = measure(asked, batch, title)
            print(title, batch, figures[f"{title}, batch {batch}"], flush=True)
    batches = " ".join(map(str, asked.batches))
    command = f"python -m benchmarks.gpu --network {asked.network} --size {asked.size} --batches {batches}"
    write_result(asked.name, f"{command} --seconds {asked.seconds:g}{' --compile' * asked.compile}", figures)


if __name__ == "__main__":
    main()
