"""Inputs of every training step: pack, split, network and seed; and their data and network on the device."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcam_model.core.schema import Record
from pcam_model.data.mmap_reader import MmapReader
from pcam_model.data.pack import Pack, load_patches, load_table
from pcam_model.data.patch_loader import PatchLoader, make_loader, on_device
from pcam_model.data.split import Split, split_rows
from pcam_model.training.checkpoint import Checkpoint, load_weights
from pcam_model.training.device import ComputeConfig, best_device, set_float32_precision
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network


class TrainingContext(Record):
    """Inputs of every training step."""

    pack: Pack
    split: Split
    model: ModelConfig
    seed: int
    compute: ComputeConfig = ComputeConfig()

    def inputs(self) -> dict[str, str]:
        """Digests of the data, for the identity of checkpoints and steps."""
        return {"pack": self.pack.digest, "split": self.split.digest}


@dataclass(frozen=True)
class SplitData:
    """A pack's patches, and loaders by split."""

    patches: NDArray[np.uint8]
    """uint8 (N, 96, 96, 3): the whole pack."""
    table: pd.DataFrame
    """One row per patch of the pack."""
    rows: dict[str, NDArray[np.int64]]
    """Rows of the pack by split; patches without a label are in "unlabelled", where there are any."""
    loaders: dict[str, PatchLoader]


def load_split_data(context: TrainingContext, device: torch.device | None = None) -> SplitData:
    """Loaders of train, valid and, where they have patches, test and unlabelled; on the best device by default."""
    device = device or best_device()
    patches, table = load_patches(context.pack), load_table(context.pack)
    unlabelled = np.flatnonzero(table["label"].isna())
    rows: dict[str, NDArray[np.int64]] = {
        split: chosen for split, chosen in split_rows(context.split, table).items() if len(chosen)
    }
    if len(unlabelled):
        rows["unlabelled"] = unlabelled
    labels, ids = table["label"].fillna(-1).to_numpy(np.int64), table["id"].array
    tensor = _resident_patches(context.pack, device) if device.type == "cuda" else on_device(patches, device)
    image_size = context.model.image_size
    loaders = {
        split: make_loader(tensor, chosen, labels[chosen], image_size, device, ids[chosen])
        for split, chosen in rows.items()
    }
    return SplitData(patches, table, rows, loaders)


@lru_cache(maxsize=1)
def _resident_patches(pack: Pack, device: torch.device) -> Tensor | MmapReader:
    """The pack's patches for a GPU, sent there once by a process and kept for its other steps."""
    return on_device(load_patches(pack), device)


def load_network(context: TrainingContext, start: Checkpoint | None) -> PatchNetwork:
    """The network with which a stage starts: with the configured initial weights, or an earlier stage's weights."""
    set_float32_precision()
    if start is None:
        return build_network(context.model, context.seed).to(best_device())
    config = context.model.model_copy(update={"weights": "none"})
    network = build_network(config, context.seed, quiet=True)
    load_weights(Path(start.path), network)
    return network.to(best_device())
