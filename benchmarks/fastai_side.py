"""fastai's side of a comparison: the recipe as its users write it, in an environment of its own.

Reads requests, one JSON a line, and answers each with one JSON a line. It needs fastai alone; `beside_fastai` and
`time_to_quality` start it and say how the environment is made.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torchvision
from fastai.vision.all import (  # type: ignore[import-not-found]
    Callback,
    CancelFitException,
    ImageDataLoaders,
    Learner,
    Normalize,
    RocAucBinary,
    aug_transforms,
    default_split,
    imagenet_stats,
    model_meta,
    vision_learner,
)

BODY_SPLIT = {"cut": -1, "split": default_split}  # fastai knows no MobileNetV2: its body is all but the last child
FROZEN_EPOCHS = 1


def loaders(folder: Path, table: str, size: int, batch: int) -> ImageDataLoaders:
    """Patches read from their image files by fastai's own workers; columns file, label and is_valid."""
    augmentation = aug_transforms(flip_vert=True, size=size)  # the recipe's: fastai's defaults, folded into one sample
    return ImageDataLoaders.from_df(
        pd.read_csv(folder / table),
        folder,
        fn_col="file",
        label_col="label",
        valid_col="is_valid",
        bs=batch,
        batch_tfms=[*augmentation, Normalize.from_stats(*imagenet_stats)],
        device=torch.device("cpu"),
    )


def learner(data: ImageDataLoaders, name: str, weights: str = "") -> Learner:
    """A torchvision body and fastai's head; `weights` is a state dict of the body."""
    make = getattr(torchvision.models, name)

    def with_weights(pretrained: bool = False) -> torch.nn.Module:  # noqa: ARG001 - fastai passes it
        network: torch.nn.Module = make(weights=None)
        keys = network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
        if keys.unexpected_keys or any(not key.startswith(("classifier", "fc")) for key in keys.missing_keys):
            raise SystemExit(f"{weights} is not the body of {name}: {keys}")
        return network

    model_meta.setdefault(make, BODY_SPLIT)
    model_meta[with_weights] = model_meta[make]
    arch = with_weights if weights else make
    return vision_learner(data, arch, pretrained=False, normalize=False, metrics=RocAucBinary())


class TimeLimit(Callback):  # type: ignore[misc]
    """Stops training after so many seconds, counted from the end of the first batch."""

    def __init__(self, seconds: float):
        self.seconds, self.times = seconds, list[float]()

    def after_batch(self) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) > 1 and self.times[-1] - self.times[0] >= self.seconds:
            raise CancelFitException


def train(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Images a second of training the whole network."""
    data = loaders(folder, order["table"], order["size"], order["batch"])
    limit = TimeLimit(order["seconds"])
    learn = learner(data, order["network"])
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1000, 1e-4, cbs=limit)
    return {"rate": (len(limit.times) - 1) * order["batch"] / (limit.times[-1] - limit.times[0])}


def read(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Images a second of the data path alone: files, decoding, augmentation, normalisation."""
    data, times = loaders(folder, order["table"], order["size"], order["batch"]), list[float]()
    while len(times) < 2 or times[-1] - times[0] < order["seconds"]:
        for _ in data.train:
            times.append(time.perf_counter())
            if len(times) > 1 and times[-1] - times[0] >= order["seconds"]:
                break
    return {"rate": (len(times) - 1) * order["batch"] / (times[-1] - times[0])}


class EpochClock(Callback):  # type: ignore[misc]
    """Notes the validation figures of each epoch with the seconds since a start."""

    order = 100  # after the recorder

    def __init__(self, start: float):
        self.start, self.rows = start, list[dict[str, Any]]()

    def after_epoch(self) -> None:
        _, _, auc = self.recorder.values[-1]
        self.rows.append({"seconds": time.perf_counter() - self.start, "auc": auc})


def quality(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Fine-tuning as `fine_tune` does it, from given weights: AUC on the validation split after each epoch."""
    start = time.perf_counter()
    torch.manual_seed(order["seed"])
    data = loaders(folder, order["table"], order["size"], order["batch"])
    learn, clock = learner(data, order["network"], order["weights"]), EpochClock(start)
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(order["epochs"] - FROZEN_EPOCHS, freeze_epochs=FROZEN_EPOCHS, cbs=clock)
    return {"epochs": clock.rows, "threads": torch.get_num_threads()}


def main() -> None:
    """Answer requests until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="holds the image files and the tables of them")
    folder = parser.parse_args().folder
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what fastai prints is no answer
    print(json.dumps({"fastai": importlib.metadata.version("fastai")}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(
            json.dumps({"train": train, "read": read, "quality": quality}[order["what"]](folder, order)),
            file=answers,
            flush=True,
        )


if __name__ == "__main__":
    main()
