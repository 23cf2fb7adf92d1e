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


def measure(args: argparse.Namespace, batch: int, title: str) -> dict[str, float | str]:
    stage, compute = stage_of(title, batch), ComputeConfig(checkpoint_seconds=1e9, compile=args.compile)
    gpu = torch.cuda.is_available()
    try:
        bare = bare_rate(args.network, args.size, stage, args.seconds)
        steps = max(6, round(bare * args.seconds / batch))
        if gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        rate = fit_rate(args.network, args.size, stage, steps, compute)
    except torch.OutOfMemoryError as error:
        return {"out of memory": str(error).splitlines()[0]}
    result: dict[str, float | str] = {
        "images/s": round(rate, 1),
        "bare step, images/s": round(bare, 1),
        "share of the bare step": round(rate / bare, 3),
        f"seconds for {EPOCH:,} patches": round(EPOCH / rate, 1),
    }
    if gpu:
        result["peak memory, GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return result


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128, 256, 512, 1024])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--name", default="gpu", help="of the result in benchmarks/results")
    args = parser.parse_args(argv)
    figures: dict[str, object] = {
        "network": args.network,
        "size": args.size,
        "compiled": args.compile,
        "numbers": str(autocast_dtype(best_device()) or torch.float32).removeprefix("torch."),
    }
    for batch in args.batches:
        for title in ("frozen", "finetune"):
            figures[f"{title}, batch {batch}"] = measure(args, batch, title)
            print(title, batch, figures[f"{title}, batch {batch}"], flush=True)
    batches = " ".join(map(str, args.batches))
    command = f"python -m benchmarks.gpu --network {args.network} --size {args.size} --batches {batches}"
    write_result(args.name, f"{command} --seconds {args.seconds:g}{' --compile' * args.compile}", figures)


if __name__ == "__main__":
    main()
