"""The patches that a report shows, with heatmaps."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from pcam_model.core.platt_scaling import PlattScaling
from pcam_model.core.rng import derived_seed
from pcam_model.data.patch_loader import normalise
from pcam_model.evaluation import heatmap, metrics
from pcam_model.evaluation.cross_fit import calibrate_splits
from pcam_model.evaluation.evidence import Evidence, Example
from pcam_model.evaluation.report_schema import HeatInCentre

Array = NDArray[Any]
Patches = NDArray[np.uint8]
EXAMPLES_PER_GROUP = 6
MAX_CENTRE_PATCHES = 128
HEATMAP_BATCH_SIZE = 16
CENTRE_CHANCE = 1 / 9  # the centre's share of a patch's area
EXAMPLES_KEY = 42  # the first number of an RNG key: what the random numbers are for


def choose_examples(
    labels: Array, log_odds: Array, predicted: Array, seed: int, per_group: int = EXAMPLES_PER_GROUP
) -> dict[str, Array]:
    """Group to the positions (at most `per_group`) of its patches; labels, log odds, predicted classes: (N,).

    The errors with the highest loss are the most confident ones; they are shown by kind.
    """
    order, correct = np.argsort(log_odds, kind="stable"), labels == predicted
    rng = np.random.default_rng(derived_seed(seed, EXAMPLES_KEY))
    hits = rng.permutation(np.flatnonzero(correct))
    both_classes = [hits[labels[hits] == label][: per_group // 2] for label in (1, 0)]
    groups = {
        "Missed tumours, highest loss": order[(labels[order] == 1) & ~correct[order]],
        "False alarms, highest loss": order[(labels[order] == 0) & ~correct[order]][::-1],
        "Least certain": np.argsort(np.abs(log_odds), kind="stable"),
        "Random hits": np.concatenate(both_classes),
    }
    return {group: positions[:per_group] for group, positions in groups.items() if len(positions)}


def add_examples(evidence: Evidence, network: nn.Module, image_size: int, patches: Patches) -> Evidence:
    """The evidence with examples of its last split, predicted as the published model does, and their heat.

    `patches`: the pack, uint8 (N, 96, 96, 3), which the predictions' `rows` refer to.
    """
    calibration, splits = calibrate_splits(evidence)
    name = list(splits)[-1]
    table, rows = splits[name].table, evidence.predictions[name].rows
    assert rows is not None, "heatmaps need the rows of the pack"
    examples = explain_examples(
        network,
        image_size,
        patches,
        rows,
        table,
        scaling=calibration.scaling,
        threshold=calibration.thresholds.get(evidence.score.operating_point, 0.5),
        seed=evidence.seed,
    )
    return dataclasses.replace(
        evidence, examples=examples, heat_in_centre=heat_in_centre(network, image_size, patches, rows, table)
    )


def explain_examples(
    network: nn.Module,
    image_size: int,
    patches: Patches,
    rows: Array,
    table: pd.DataFrame,
    *,
    scaling: PlattScaling | None = None,
    threshold: float = 0.5,
    seed: int = 2,
    per_group: int = EXAMPLES_PER_GROUP,
) -> list[Example]:
    """The examples of a split, each with the heat of its predicted class.

    Args:
        network: normalised images (B, 3, image_size, image_size) -> logits (B, 2); it runs on its own device.
        image_size: the network's input size in pixels.
        patches: the pack, uint8 (N, 96, 96, 3).
        rows: the row of the pack of each row of the table, (n,).
        table: predictions (n rows): id, slide, label, logit0, logit1.
        scaling: what calibrates the shown probability; by default nothing.
        threshold: the probability from which a patch is called tumour.
        seed: of the random hits.
        per_group: number of patches of a group.
    """
    log_odds = (scaling or PlattScaling()).log_odds(metrics.log_odds(table[["logit0", "logit1"]].to_numpy()))
    predicted = (metrics.sigmoid(log_odds) >= threshold).astype(np.int64)
    # Repeats of one patch would show the same picture over and over.
    distinct = np.flatnonzero(~table["pixels"].duplicated()) if "pixels" in table else np.arange(len(table))
    above_threshold = log_odds - np.log(threshold / (1 - threshold))
    labels = table["label"].to_numpy(np.int64)
    groups = choose_examples(labels[distinct], above_threshold[distinct], predicted[distinct], seed, per_group)
    examples = []
    for group, positions in groups.items():
        chosen = distinct[positions]
        pixels = patches[rows[chosen]]
        heat = _heat(network, image_size, pixels, predicted[chosen])
        probabilities = metrics.sigmoid(log_odds[chosen])
        examples += [
            _example(group, table.iloc[int(row)], int(predicted[row]), float(probability), patch, patch_heat)
            for row, probability, patch, patch_heat in zip(chosen, probabilities, pixels, heat, strict=True)
        ]
    return examples


def _example(
    group: str, row: "pd.Series[Any]", predicted: int, probability: float, patch: Patches, heat: NDArray[np.float32]
) -> Example:
    return Example(
        group=group,
        id=str(row["id"]),
        slide="" if pd.isna(row["slide"]) else str(row["slide"]),
        label=int(row["label"]),
        predicted=predicted,
        probability=probability,
        patch=np.asarray(patch),
        heat=heat if heat.any() else None,
    )


def heat_in_centre(
    network: nn.Module,
    image_size: int,
    patches: Patches,
    rows: Array,
    table: pd.DataFrame,
    max_patches: int = MAX_CENTRE_PATCHES,
) -> HeatInCentre:
    """Mean share of the heat inside the decisive centre, over detected tumours; arguments as in `explain_examples`."""
    log_odds = metrics.log_odds(table[["logit0", "logit1"]].to_numpy())
    detected = np.flatnonzero((table["label"].to_numpy() == 1) & (log_odds >= 0))
    chosen = detected[:: max(1, len(detected) // max_patches)][:max_patches]
    if not len(chosen):
        return HeatInCentre(mean_share=None, chance=CENTRE_CHANCE, patches=0, blank=0)
    batches = np.array_split(chosen, -(-len(chosen) // HEATMAP_BATCH_SIZE))
    heats = (_heat(network, image_size, patches[rows[batch]], np.ones(len(batch), np.int64)) for batch in batches)
    shares = np.concatenate([heatmap.share_in_centre(heat) for heat in heats])
    finite = shares[np.isfinite(shares)]
    return HeatInCentre(
        mean_share=float(finite.mean()) if len(finite) else None,
        chance=CENTRE_CHANCE,
        patches=len(chosen),
        blank=len(chosen) - len(finite),
    )


def _heat(network: nn.Module, image_size: int, patches: Patches, classes: Array) -> NDArray[np.float32]:
    """Heat float32 (B, 96, 96) of patches uint8 (B, 96, 96, 3) for classes (B,)."""
    device = next(network.parameters()).device
    images = normalise(torch.from_numpy(np.ascontiguousarray(patches)).to(device), image_size)
    heat = heatmap.grad_cam(network, images, torch.from_numpy(classes).to(device), size=patches.shape[1])
    return np.asarray(heat.cpu().numpy(), dtype=np.float32)
