"""A challenger against the champion: on which patches, who is better, and what follows."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from pcam_model.core.schema import Config, Record
from pcam_model.data.pack import Pack, patches, table
from pcam_model.data.patch_loader import batches, on_device
from pcam_model.data.split import read_sides
from pcam_model.evaluation.compare import Difference
from pcam_model.evaluation.forward import as_table, forward
from pcam_model.training.device import best_device
from pcam_model.training.model_io import load_model

Rows = NDArray[np.int64]
SIDE = "valid"  # promotion is a choice, and nothing is chosen on the test part


class PromotionConfig(Config):
    """When a newly trained model takes the champion's place."""

    channel: str = "champion"
    """The channel that points to the champion."""
    margin: float = Field(0.005, ge=0, le=0.5)
    """How far below the champion's AUC the 95 % interval of the challenger's may reach."""


class Decision(Record):
    """What became of a challenger, and why."""

    verdict: Literal["unchanged", "promoted", "rejected"]
    reason: str
    channel: str
    champion: str
    """The run that the channel pointed to; empty: none."""
    challenger: str
    """The run that was trained; with `unchanged`, the one that would have been."""
    margin: float
    patches: int = 0
    """How many held-out patches both were judged on."""
    left_out: int = 0
    """Held-out patches of the challenger that the champion has been trained on, or whose slide it has."""
    difference: Difference | None = None
    """Challenger less champion."""


def held_out(pack: Pack, challenger: Path, champion: Path) -> tuple[Rows, int]:
    """Rows of the pack that neither model was trained on, and how many the champion's training takes away.

    Args:
        pack: what the challenger was trained on.
        challenger: the folder of its split; its validation part is meant.
        champion: the folder of the champion's split. Its training patches are known by their names and pixels, and by
            their slides where that split keeps slides apart.
    """
    people = table(pack)
    own = read_sides(challenger)
    rows = own["row"][own["side"] == SIDE].sort_values().to_numpy(np.int64)
    other = read_sides(champion)
    learnt = people[people["id"].isin(other["id"][other["side"] == "train"])]
    known = people["id"].isin(learnt["id"]) | people["pixels"].isin(learnt["pixels"])
    if other.attrs["kind"] != "random":
        known |= people["slide"].notna() & people["slide"].isin(learnt["slide"].dropna())
    kept = rows[~known.to_numpy(bool)[rows]]
    return kept, len(rows) - len(kept)


def judge(model: Path, pack: Pack, rows: Rows, tell: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """What a model says of these rows of a pack: id, slide, label, logit0, logit1; as it predicts, views included.

    Raises:
        ModelError: the folder holds no whole model.
    """
    network, about = load_model(model)
    people, device = table(pack), best_device()
    labels = people["label"].iloc[rows].to_numpy(np.int64)
    part = batches(on_device(patches(pack), device), rows, labels, about.size, device)
    return as_table(people, rows, forward(network, part, about.tta, tell)[1])


def both_classes(pack: Pack, rows: Rows) -> bool:
    """Whether anything can be compared on these rows."""
    return bool(table(pack)["label"].iloc[rows].nunique() == 2)


def decide(config: PromotionConfig, difference: Difference, patches: int, left_out: int) -> Decision:
    """Promoted where the challenger is better, and the interval says that it is not worse beyond the margin."""
    better, safe = difference.value > 0, difference.low > -config.margin
    words = f"{'better' if better else 'no better'}, {'and' if better == safe else 'but'} "
    words += f"a loss beyond the margin of {config.margin:g} is {'ruled out' if safe else 'possible'}"
    reason = (
        f"AUC {difference.auc_second:.4f} against the champion's {difference.auc_first:.4f} on {patches:,} held-out "
        f"patches: {difference.value:+.4f} (95 % interval {difference.low:+.4f} to {difference.high:+.4f}, over "
        f"{difference.unit}), {words}"
    )
    return Decision(
        verdict="promoted" if better and safe else "rejected",
        reason=reason,
        channel=config.channel,
        champion=difference.first,
        challenger=difference.second,
        margin=config.margin,
        patches=patches,
        left_out=left_out,
        difference=difference,
    )
