"""Which patches a report shows, and what the network saw in them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from pcam_model.core.rng import derived_seed
from pcam_model.data.patch_loader import normalise
from pcam_model.evaluation import heatmap, metrics
from pcam_model.evaluation.cross_fit import judge_splits
from pcam_model.evaluation.evidence import Evidence, Example

Array = NDArray[Any]
EACH = 6
SHOWN = 42  # what the randomness of a place is for


def choose_examples(labels: Array, odds: Array, called: Array, seed: int, each: int = EACH) -> dict[str, Array]:
    """Group to the positions (at most `each`) of its patches, of labels, odds and calls (N,).

    The errors with the highest loss are the most confident ones; they are shown by kind.
    """
    order, right = np.argsort(odds, kind="stable"), labels == called
    hits = np.random.default_rng(derived_seed(seed, SHOWN)).permutation(np.flatnonzero(right))
    half = [hits[labels[hits] == label][: each // 2] for label in (1, 0)]
    groups = {
        "Missed tumours, highest loss": order[(labels[order] == 1) & ~right[order]],
        "False alarms, highest loss": order[(labels[order] == 0) & ~right[order]][::-1],
        "Least certain": np.argsort(np.abs(odds), kind="stable"),
        "Random hits": np.concatenate(half),
    }
    return {group: at[:each] for group, at in groups.items() if len(at)}


def explained(
    evidence: Evidence, network: nn.Module, size: int, patches: NDArray[np.uint8], rows: Array
) -> tuple[list[Example], Mapping[str, Any]]:
    """Examples and pointing figure of the evidence's last side, as the model that is published calls its patches.

    `patches`: the pack, uint8 (N, 96, 96, 3); `rows`: which row of it each prediction of that side is, (n,).
    """
    chosen, judged = judge_splits(evidence)
    side = list(judged)[-1]
    own = evidence.score.operating_point
    table, threshold = judged[side].table, chosen.thresholds.get(own, 0.5)
    examples = explain_examples(network, size, patches, rows, table, temperature=chosen.temperature,
                                threshold=threshold, seed=evidence.seed)  # fmt: skip
    return examples, pointing(network, size, patches, rows, table)


def explain_examples(
    network: nn.Module,
    size: int,
    patches: NDArray[np.uint8],
    rows: Array,
    table: pd.DataFrame,
    *,
    temperature: float = 1.0,
    threshold: float = 0.5,
    seed: int = 2,
    each: int = EACH,
) -> list[Example]:
    """The examples of a side, each with the heat of its predicted class.

    Args:
        network: normalised images (B, 3, size, size) -> logits (B, 2); it is run where it lies.
        size: the side that the network sees, in pixels.
        patches: the pack, uint8 (N, 96, 96, 3).
        rows: which row of the pack each row of the table is, (n,).
        table: predictions (n rows): id, slide, label, logit0, logit1.
        temperature: what odds are divided by for the probability that is told.
        threshold: the probability from which a patch is called tumour.
        seed: of the random hits.
        each: patches a group.
    """
    labels = table["label"].to_numpy(np.int64)
    odds = metrics.margin(table[["logit0", "logit1"]].to_numpy()) / temperature
    called = (metrics.sigmoid(odds) >= threshold).astype(np.int64)
    # Repeats of one patch would show the same picture over and over.
    one = np.flatnonzero(~table["pixels"].duplicated()) if "pixels" in table else np.arange(len(table))
    beyond = odds - np.log(threshold / (1 - threshold))
    groups = {
        group: one[at] for group, at in choose_examples(labels[one], beyond[one], called[one], seed, each).items()
    }
    return [
        example
        for group, at in groups.items()
        for example in _explained(group, at, table, odds, called, _heat(network, size, patches[rows[at]], called[at]),
                                  patches[rows[at]])
    ]  # fmt: skip


def pointing(
    network: nn.Module, size: int, patches: NDArray[np.uint8], rows: Array, table: pd.DataFrame, most: int = 128
) -> Mapping[str, Any]:
    """Mean share of the heat inside the decisive centre, over tumours that were found: the pointing figure.

    Returns `share`, `chance` (1/9: the centre's share of the area), `patches` and `blank` (maps without any heat).
    """
    odds = metrics.margin(table[["logit0", "logit1"]].to_numpy())
    found = np.flatnonzero((table["label"].to_numpy() == 1) & (odds >= 0))
    at = found[:: max(1, len(found) // most)][:most]
    if not len(at):
        return {"share": None, "chance": 1 / 9, "patches": 0, "blank": 0}
    shares = np.concatenate([
        heatmap.share_in_centre(_heat(network, size, patches[rows[part]], np.ones(len(part), np.int64)))
        for part in np.array_split(at, -(-len(at) // 16))
    ])  # fmt: skip
    whole = shares[np.isfinite(shares)]
    mean = float(whole.mean()) if len(whole) else None
    return {"share": mean, "chance": 1 / 9, "patches": len(at), "blank": len(at) - len(whole)}


def _heat(network: nn.Module, size: int, patches: NDArray[np.uint8], classes: Array) -> NDArray[np.float32]:
    device = next(network.parameters()).device
    images = normalise(torch.from_numpy(np.ascontiguousarray(patches)).to(device), size)
    heat = heatmap.grad_cam(network, images, torch.from_numpy(classes).to(device), side=patches.shape[1])
    return np.asarray(heat.cpu().numpy(), dtype=np.float32)


def _explained(
    group: str, at: Array, table: pd.DataFrame, odds: Array, called: Array, heat: Array, patches: NDArray[np.uint8]
) -> list[Example]:
    shown = []
    for number, row in enumerate(at):
        line = table.iloc[int(row)]
        shown.append(Example(
            group=group, id=str(line["id"]), slide="" if pd.isna(line["slide"]) else str(line["slide"]),
            label=int(line["label"]), predict_rows=int(called[row]), probability=float(metrics.sigmoid(odds[row])),
            patch=np.asarray(patches[number]), heat=heat[number] if heat[number].any() else None,
        ))  # fmt: skip
    return shown
