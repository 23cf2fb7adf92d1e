"""A preset on real patches, as a user runs it: seconds to a published model, and AUC on other slides.

    python -m benchmarks.real_patches --train ../shared/data/pcam/train.zip --valid ../shared/data/pcam/valid.zip \
        --weights ../shared/data/weights/mobilenet_v2-imagenet-features.pth [--preset pcam] [--seeds 2 3 4]

Everything is chosen on the first archive; the second is only reported on.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import write_result
from pcam_model.config_reader import PRESETS
from pcam_model.presets import preset_keys

PCAM = [sys.executable, "-c", "from pcam_model.cli.main import main; main()"]


def pcam(home: Path, *arguments: str) -> str:
    addresses = {"PCAM_CACHE": str(home / "cache"), "PCAM_STORE": (home / "store").as_uri()}
    done = subprocess.run([*PCAM, *arguments], env=os.environ | addresses, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def train_and_score(home: Path, args: argparse.Namespace, seed: int) -> dict[str, float]:
    start = time.perf_counter()
    options = ["--source", args.train, "--preset", args.preset, "--run", f"seed-{seed}"]
    keys = (f"model.weights={args.weights}", f"seed={seed}", "split.kind=random")
    pcam(home, "train", *options, *(word for key in keys for word in ("--set", key)))
    seconds = time.perf_counter() - start
    scored = json.loads(pcam(home, "score", f"seed-{seed}", args.valid, "--json"))
    own = json.loads(pcam(home, "show", f"seed-{seed}", "--json"))["figures"]["valid"]["auc"]["value"]
    report = json.loads((home / "store" / "runs" / f"seed-{seed}" / "report" / "report.json").read_bytes())
    result = {"seconds to published": round(seconds, 1), "AUC, random hold-out": round(own, 4)}
    result |= {f"{name}, other slides": round(scored["figures"][name], 4) for name in ("auc", "accuracy", "nll")}
    return result | {
        "nll, other slides, before calibration": round(scored["uncalibrated"]["nll"], 4),
        "auc, other slides, gain of 8 views": round(scored["tta_gain"]["value"], 4),
        "heat inside the decisive centre (chance 0.111)": round(report["heat_in_centre"]["mean_share"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--train", "--valid", "--weights"):
        parser.add_argument(name, required=True, type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--preset", default="quick", choices=PRESETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[2])
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            figures[f"seed {seed}"] = train_and_score(Path(folder), args, seed)
            print(seed, figures[f"seed {seed}"], flush=True)
    command = "python -m benchmarks.real_patches --train train.zip --valid valid.zip --weights WEIGHTS"
    config = {"config": preset_keys(args.preset)}
    write_result(
        f"real_patches_{args.preset}",
        f"{command} --preset {args.preset} --seeds {' '.join(map(str, args.seeds))}",
        config | figures,
    )


if __name__ == "__main__":
    main()
