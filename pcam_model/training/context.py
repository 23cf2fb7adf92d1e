"""What every training step starts from: the pack, who is where, the network and the seed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pcam_model.core.schema import Record
from pcam_model.data.pack import Pack, patches, table
from pcam_model.data.patch_loader import PatchLoader, batches, on_device
from pcam_model.data.split import Split, sides
from pcam_model.training.checkpoint import Checkpoint, load_weights
from pcam_model.training.device import ComputeConfig, best_device
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network


class TrainingContext(Record):
    """What every training step starts from."""

    pack: Pack
    split: Split
    model: ModelConfig
    seed: int
    compute: ComputeConfig = ComputeConfig()

    def inputs(self) -> dict[str, str]:
        """The digests that a step on this material rests on."""
        return {"pack": self.pack.digest, "split": self.split.digest}


@dataclass(frozen=True)
class SplitData:
    """The pack on the device, by side."""

    whole: np.ndarray
    """uint8 (N, 96, 96, 3)."""
    table: pd.DataFrame
    rows: dict[str, np.ndarray]
    """Side to rows of the pack; those without a label stand under "unlabelled", where there are any."""
    batches: dict[str, PatchLoader]


def parts(context: TrainingContext, device: torch.device | None = None) -> SplitData:
    """Train, valid and (where there are such) test and unlabelled, ready to be read."""
    device = device or best_device()
    people = table(context.pack)
    rows = {**sides(context.split, people), "unlabelled": np.flatnonzero(people["label"].isna())}
    rows = {side: chosen for side, chosen in rows.items() if len(chosen)}
    labels = people["label"].fillna(-1).to_numpy(np.int64)
    array = patches(context.pack)
    whole = on_device(array, device)
    ids, size = people["id"].array, context.model.image_size
    read = {side: batches(whole, chosen, labels[chosen], size, device, ids[chosen]) for side, chosen in rows.items()}
    return SplitData(array, people, rows, read)


def load_network(context: TrainingContext, start: Checkpoint | None) -> PatchNetwork:
    """The network as a stage finds it: with the config's first weights, or as an earlier stage left it."""
    if start is None:
        return build_network(context.model, context.seed).to(best_device())
    config = context.model.model_copy(update={"weights": "none"})
    network = build_network(config, context.seed, say=lambda _: None)
    load_weights(Path(start.path), network)
    return network.to(best_device())
