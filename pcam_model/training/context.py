"""What every training step starts from: the pack, who is where, the network and the seed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pcam_model.data.patch_loader import Batches, batches, on_device
from pcam_model.data.pack import Pack, patches, table
from pcam_model.data.split import Split, sides
from pcam_model.core.schema import Record
from pcam_model.training.checkpoint import Checkpoint, load_weights
from pcam_model.training.device import ComputePlan, best_device
from pcam_model.training.network import NetworkPlan, PatchNetwork, build_network


class Material(Record):
    """What every training step starts from."""

    pack: Pack
    split: Split
    network: NetworkPlan
    seed: int
    compute: ComputePlan = ComputePlan()

    def inputs(self) -> dict[str, str]:
        """The digests that a step on this material rests on."""
        return {"pack": self.pack.digest, "split": self.split.digest}


@dataclass(frozen=True)
class Parts:
    """The pack on the device, by side."""

    whole: np.ndarray
    """uint8 (N, 96, 96, 3)."""
    table: pd.DataFrame
    rows: dict[str, np.ndarray]
    """Side to rows of the pack; those without a label stand under "unlabelled", where there are any."""
    batches: dict[str, Batches]


def parts(material: Material, device: torch.device | None = None) -> Parts:
    """Train, valid and (where there are such) test and unlabelled, ready to be read."""
    device = device or best_device()
    people = table(material.pack)
    rows = {**sides(material.split, people), "unlabelled": np.flatnonzero(people["label"].isna())}
    rows = {side: chosen for side, chosen in rows.items() if len(chosen)}
    labels = people["label"].fillna(-1).to_numpy(np.int64)
    array = patches(material.pack)
    whole = on_device(array, device)
    ids, size = people["id"].array, material.network.size
    read = {side: batches(whole, chosen, labels[chosen], size, device, ids[chosen]) for side, chosen in rows.items()}
    return Parts(array, people, rows, read)


def network_at(material: Material, start: Checkpoint | None) -> PatchNetwork:
    """The network as a stage finds it: with the plan's first weights, or as an earlier stage left it."""
    if start is None:
        return build_network(material.network, material.seed).to(best_device())
    plan = material.network.model_copy(update={"weights": "none"})
    network = build_network(plan, material.seed, say=lambda _: None)
    load_weights(Path(start.path), network)
    return network.to(best_device())
