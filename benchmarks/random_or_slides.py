"""What a random split hides: one model's figures on patches held out at random, and on slides it has never seen.

    python -m benchmarks.random_or_slides --train ../shared/data/pcam/train.zip --valid ../shared/data/pcam/valid.zip \
        --weights ../shared/data/weights/mobilenet_v2-imagenet-features.pth [--limit 20000] [--seed 2]

The preset quick trains on the first archive, of which a fifth is drawn at random and only reported on; the second
archive shares no slide with it, and is only reported on too. Nothing is chosen on either.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.machine import write_result
from benchmarks.real_patches import pcam

FIGURES = ("auc", "average_precision", "accuracy", "sensitivity", "specificity")


def measured(home: Path, args: argparse.Namespace) -> dict[str, object]:
    keys = {
        "model.weights": args.weights,
        "source.max_patches": args.limit,
        "split.kind": "random",
        "split.valid": 0.2,
        "split.test": 0.2,
        "seed": args.seed,
        "split.seed": args.seed,
    }
    settings = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    start = time.perf_counter()
    pcam(home, "train", "--source", args.train, "--preset", "quick", "--run", "random", *settings)
    seconds = time.perf_counter() - start
    shown = json.loads(pcam(home, "show", "random", "--json"))
    scored = json.loads(pcam(home, "score", "random", args.valid, "--json"))
    held_out = {
        name: [each[key] for key in ("value", "low", "high")] for name, each in shown["figures"]["test"].items()
    }
    elsewhere = {name: [value, *scored["intervals"][name]] for name, value in scored["figures"].items()}
    return {
        "seconds_to_published": round(seconds, 1),
        "config": {key: value for key, value in keys.items() if key != "model.weights"},
        "split": shown["split"],
        "patches_other_slides": scored["patches"],
        "held_out_at_random": {name: rounded(held_out[name]) for name in FIGURES},
        "other_slides": {name: rounded(elsewhere[name]) for name in FIGURES},
    }


def rounded(figure: list[float]) -> dict[str, float]:
    """A figure with its 95 % interval."""
    return {name: round(value, 4) for name, value in zip(("value", "low", "high"), figure, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--train", "--valid", "--weights"):
        parser.add_argument(name, required=True, type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--limit", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), args)
    command = "python -m benchmarks.random_or_slides --train train.zip --valid valid.zip --weights WEIGHTS"
    write_result("random_or_slides", f"{command} --limit {args.limit} --seed {args.seed}", figures)


if __name__ == "__main__":
    main()
