"""A config on real patches, as a user runs it: seconds to a published model, and AUC on other slides.

    python -m benchmarks.real_patches --train ../shared/data/pcam/train.zip --valid ../shared/data/pcam/valid.zip \
        --weights ../shared/data/weights/mobilenet_v2-imagenet-features.pth [--config pcam] [--seeds 2 3 4]

Everything is chosen on a part of the first archive; the second is only reported on.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.machine import write_result

PLANS = Path(__file__).parents[1] / "deployments" / "configs"
PCAM = [sys.executable, "-c", "from pcam_model.cli.main import main; main()"]


def pcam(home: Path, *words: str) -> str:
    places = {"PCAM_CACHE": str(home / "cache"), "PCAM_STORE": (home / "store").as_uri()}
    done = subprocess.run([*PCAM, *words], env=os.environ | places, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def one(home: Path, asked: argparse.Namespace, seed: int) -> dict[str, float]:
    start = time.perf_counter()
    words = ["--source", asked.train, "--config", str(PLANS / f"{asked.config}.yaml"), "--run", f"seed-{seed}"]
    pcam(home, "train", *words, "--set", f"model.weights={asked.weights}", "--set", f"seed={seed}")
    seconds = time.perf_counter() - start
    scored = json.loads(pcam(home, "score", f"seed-{seed}", asked.valid, "--json"))
    own = json.loads(pcam(home, "show", f"seed-{seed}", "--json"))["figures"]["valid"]["auc"]["value"]
    report = json.loads((home / "store" / "runs" / f"seed-{seed}" / "report" / "report.json").read_bytes())
    found = {"seconds to published": round(seconds, 1), "AUC, random hold-out": round(own, 4)}
    found |= {f"{name}, other slides": round(scored["figures"][name], 4) for name in ("auc", "accuracy", "nll")}
    return found | {
        "nll, other slides, before calibration": round(scored["uncalibrated"]["nll"], 4),
        "auc, other slides, gain of 8 views": round(scored["tta_gain"]["value"], 4),
        "heat inside the decisive centre (chance 0.111)": round(report["heat_in_centre"]["mean_share"], 3),
    }


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--train", "--valid", "--weights"):
        words.add_argument(name, required=True, type=lambda path: str(Path(path).resolve()))
    words.add_argument("--config", default="quick", choices=sorted(path.stem for path in PLANS.glob("*.yaml")))
    words.add_argument("--seeds", nargs="+", type=int, default=[2])
    asked = words.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in asked.seeds:
            figures[f"seed {seed}"] = one(Path(folder), asked, seed)
            print(seed, figures[f"seed {seed}"], flush=True)
    command = "python -m benchmarks.real_patches --train train.zip --valid valid.zip --weights WEIGHTS"
    config = {"config": yaml.safe_load((PLANS / f"{asked.config}.yaml").read_text())}
    write_result(
        f"real_patches_{asked.config}",
        f"{command} --config {asked.config} --seeds {' '.join(map(str, asked.seeds))}",
        config | figures,
    )


if __name__ == "__main__":
    main()
