"""Training and data path beside fastai's: same machine, patches, network, size, batch and augmentation, taking turns.

    python -m venv FASTAI
    FASTAI/bin/pip install fastai==2.8.12 'fastprogress<1.1' torch==2.15.0 torchvision==0.29.2   # this torch, for both
    python -m benchmarks.beside_fastai --patches train.zip --fastai FASTAI/bin/python [--seconds 20] [--rounds 3]

Each side works as it does by itself: fastai reads image files with its own workers and computes in float32, pcam reads
its pack and computes in the device's fast numbers. A figure is the median of rounds that take turns, a ratio the median
of the rounds' ratios: a machine's drift hits both alike. About 9 minutes on two idle cores.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.machine import write_result
from pcam_model.data.pack import Pack, build_pack, load_patches, load_table
from pcam_model.data.patch_loader import PatchLoader, make_loader, on_device
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.training.callbacks import Callbacks
from pcam_model.training.device import best_device, describe_device
from pcam_model.training.network import ModelConfig, build_network
from pcam_model.training.stage import FinetuneConfig, Stage
from pcam_model.training.trainer import Trainer

SCRIPT = Path(__file__).with_name("fastai_side.py")
PATCHES, VALID = 2048, 64
LR = 1e-4


class Fastai:
    """fastai in a process of its own, which answers requests."""

    def __init__(self, python: str, folder: Path):
        command = [python, str(SCRIPT), "--folder", str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.version: str = self._answer()["fastai"]

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send a request; returns its answer."""
        assert self.process.stdin
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{SCRIPT.name} ended with {self.process.wait()}; run it by hand to see why")
        answer: dict[str, Any] = json.loads(line)
        return answer


def image_files(archive: Path, folder: Path, prefix: str, is_valid: bool) -> pd.DataFrame:
    """Unpack a Kaggle-layout archive below `folder`/`prefix`, as fastai wants it; columns file, label and is_valid."""
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder / prefix)
    labels = pd.read_csv(folder / prefix / "train_labels.csv")
    paths = {path.stem: str(path.relative_to(folder)) for path in (folder / prefix / "train").iterdir()}
    return pd.DataFrame({"file": labels["id"].map(paths), "label": labels["label"], "is_valid": is_valid})


def packed(archive: Path, folder: Path) -> Pack:
    """The pack of an archive, built below `folder`."""
    config = SourceConfig(kind="path", path=str(archive))
    return build_pack(fetch(config, 2), config, folder, 2)


def rows_loader(pack: Pack, rows: slice, size: int) -> PatchLoader:
    """A loader of some rows of a pack, in their order."""
    device, labels = best_device(), load_table(pack)["label"].to_numpy(int)
    return make_loader(on_device(load_patches(pack), device), np.arange(pack.count)[rows], labels[rows], size, device)


class TimeOver(Exception):
    """The time of a measurement is over."""


def train(pack: Pack, name: str, size: int, batch: int, seconds: float) -> float:
    """Images a second of `Trainer`, from its first report of progress."""
    network = build_network(
        ModelConfig.model_validate({"arch": name, "weights": "none", "image_size": size}), 2, quiet=True
    )
    stage = Stage(
        name="finetune", config=FinetuneConfig(epochs=1000, batch_size=batch, no_warp_fraction=0, ema_fraction=0)
    )
    times = list[tuple[float, int]]()

    def on_progress(done: int, _total: int) -> None:
        times.append((time.perf_counter(), done))
        if len(times) > 1 and times[-1][0] - times[0][0] >= seconds:
            raise TimeOver

    learnt, valid = (rows_loader(pack, rows, size) for rows in (slice(PATCHES), slice(PATCHES, PATCHES + VALID)))
    network = stage.prepare(network.to(best_device()))
    with tempfile.TemporaryDirectory() as folder, suppress(TimeOver):
        Trainer(network, learnt, valid, stage, LR, 2, Path(folder), Callbacks(on_progress=on_progress)).run()
    return (times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0])


def read(pack: Pack, size: int, batch: int, seconds: float) -> float:
    """Images a second of the data path alone: the pack, augmentation, normalisation."""
    loader, times, step = rows_loader(pack, slice(PATCHES), size), list[float](), 0
    while len(times) < 2 or times[-1] - times[0] < seconds:
        epoch, k = divmod(step, PATCHES // batch)
        loader.augmented_batch(loader.epoch_order(2, 2, epoch)[k * batch : (k + 1) * batch], 2, 2, epoch, k)
        times.append(time.perf_counter())
        step += 1
    return (len(times) - 1) * batch / (times[-1] - times[0])


def rate_of(request: Callable[[], dict[str, Any]]) -> float:
    """Images a second, as fastai's process answers."""
    return float(request()["rate"])


def turns(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> dict[str, Any]:
    """Both measurements in turn, `rounds` times: the medians, and the median of the ratios."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    ratio = statistics.median(mine / other for mine, other in pairs)
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"pcam": round(mine, 1), "fastai": round(other, 1), "ratio": round(ratio, 2)} | {
        "rounds": [[round(mine, 1), round(other, 1)] for mine, other in pairs]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=Path, required=True, help="a Kaggle-layout .zip of 2,112 patches or more")
    parser.add_argument("--fastai", required=True, help="the Python of the environment that has fastai")
    parser.add_argument("--trained", nargs="+", default=["resnet50:224", "resnet50:96"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20, help="of one bout of training; the data path takes half")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        folder, pack = Path(home), packed(args.patches, Path(home) / "packs")
        files = image_files(args.patches, folder, "files", False)[: PATCHES + VALID]
        files.assign(is_valid=files.index >= PATCHES).to_csv(folder / "patches.csv", index=False)
        other = Fastai(args.fastai, folder)
        for one in args.trained:
            name, _, side = one.partition(":")
            order = {"table": "patches.csv", "network": name, "size": int(side), "batch": args.batch}
            for what, mine, seconds in (
                ("train", partial(train, pack, name), args.seconds),
                ("read", partial(read, pack), args.seconds / 2),
            ):
                request = partial(other.ask, what=what, seconds=seconds, **order)
                title = f"{'training ' + name if what == 'train' else 'data path'} at {side}"
                figures[title] = turns(
                    partial(mine, int(side), args.batch, seconds), partial(rate_of, request), args.rounds
                )
                print(title, figures[title], flush=True)
        other.close()
    write_result(
        "beside_fastai",
        f"python -m benchmarks.beside_fastai --patches train.zip --fastai FASTAI --seconds {args.seconds:g} "
        f"--rounds {args.rounds} --batch {args.batch} --trained {' '.join(args.trained)}",
        {"unit": "images/s", "numbers": describe_device(best_device()), "fastai": other.version, "batch": args.batch}
        | figures,
    )


if __name__ == "__main__":
    main()
