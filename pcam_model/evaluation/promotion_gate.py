"""The promotion gate: challenger against champion on patches that neither was trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from pcam_model.core.schema import Config, Record
from pcam_model.data.pack import Pack, load_patches, load_table
from pcam_model.data.patch_loader import make_loader, on_device
from pcam_model.data.split import read_split_table
from pcam_model.evaluation.logits import OnProgress
from pcam_model.evaluation.predictions import predict_split
from pcam_model.evaluation.report_schema import Difference
from pcam_model.training.device import best_device
from pcam_model.training.model_io import load_model

Rows = NDArray[np.int64]
SPLIT = "valid"  # promotion is a choice, and nothing is chosen on the test split


class PromotionConfig(Config):
    """When a newly trained model takes the champion's place."""

    channel: str = "champion"
    """The channel that points to the champion."""
    margin: float = Field(0.005, ge=0, le=0.5)
    """How far below the champion's AUC the 95 % interval of the challenger's may reach, and in any domain its AUC."""


class Decision(Record):
    """Whether a challenger is promoted, and why."""

    verdict: Literal["unchanged", "promoted", "rejected"]
    reason: str
    channel: str
    champion: str
    """The run that the channel pointed to; empty: none."""
    challenger: str
    """The run that was trained; with `unchanged`, the one that would have been."""
    margin: float
    patches: int = 0
    """Number of held-out patches that both were scored on."""
    left_out: int = 0
    """Held-out patches of the challenger that the champion has been trained on, or whose slide it has."""
    difference: Difference | None = None
    """Challenger minus champion."""
    domains: dict[str, Difference] = Field(default_factory=dict)
    """Challenger minus champion in each domain (centre, scanner) that has held-out patches of both classes."""


def held_out_rows(pack: Pack, challenger: Path, champion: Path) -> tuple[Rows, int]:
    """Rows of the pack that neither model was trained on, and how many were left out for the champion's training.

    Args:
        pack: what the challenger was trained on.
        challenger: the folder of its split, whose validation split is used.
        champion: the folder of the champion's split. Its training patches are known by their names and pixels, and by
            their slides where that split keeps slides apart.
    """
    table = load_table(pack)
    own = read_split_table(challenger)
    rows = own["row"][own["split"] == SPLIT].sort_values().to_numpy(np.int64)
    other = read_split_table(champion)
    trained_on = table[table["id"].isin(other["id"][other["split"] == "train"])]
    known = table["id"].isin(trained_on["id"]) | table["pixels"].isin(trained_on["pixels"])
    if other.attrs["kind"] not in ("random", "cluster"):
        known |= table["slide"].notna() & table["slide"].isin(trained_on["slide"].dropna())
    unknown = rows[~known.to_numpy(bool)[rows]]
    return unknown, len(rows) - len(unknown)


def predict_rows(model: Path, pack: Pack, rows: Rows, on_progress: OnProgress | None = None) -> pd.DataFrame:
    """A model's predictions on rows of a pack, with its own TTA setting; see `predictions_table` for the columns.

    Raises:
        ModelError: the folder holds no complete model.
    """
    network, metadata = load_model(model)
    table, device = load_table(pack), best_device()
    labels = table["label"].iloc[rows].to_numpy(np.int64)
    loader = make_loader(on_device(load_patches(pack), device), rows, labels, metadata.image_size, device)
    return predict_split(network, loader, table, rows, metadata.tta, on_progress).table


def has_both_classes(pack: Pack, rows: Rows) -> bool:
    """Whether the rows hold patches of both classes, without which there is no AUC."""
    return bool(load_table(pack)["label"].iloc[rows].nunique() == 2)


def decide(
    config: PromotionConfig,
    difference: Difference,
    patches: int,
    left_out: int,
    domains: Mapping[str, Difference] | None = None,
) -> Decision:
    """Promote where the challenger is better, surely not worse by more than the margin, and so in no domain.

    Args:
        config: the margin.
        difference: challenger minus champion.
        patches: number of held-out patches of both.
        left_out: held-out patches that were left out.
        domains: challenger minus champion in each domain; there the AUC itself may not be lower by more than the
            margin, whatever its interval, since a domain may have few patches.
    """
    domains = dict(domains or {})
    better, safe = difference.value > 0, difference.low > -config.margin
    verdict = f"{'better' if better else 'no better'}, {'and' if better == safe else 'but'} "
    verdict += f"a loss beyond the margin of {config.margin:g} is {'ruled out' if safe else 'possible'}"
    reason = (
        f"AUC {difference.auc_second:.4f} against the champion's {difference.auc_first:.4f} on {patches:,} held-out "
        f"patches: {difference.value:+.4f} (95 % interval {difference.low:+.4f} to {difference.high:+.4f}, over "
        f"{difference.unit}), {verdict}{_describe_domains(config, domains)}"
    )
    return Decision(
        verdict="promoted" if better and safe and not _worse_domains(config, domains) else "rejected",
        reason=reason,
        channel=config.channel,
        champion=difference.first,
        challenger=difference.second,
        margin=config.margin,
        patches=patches,
        left_out=left_out,
        difference=difference,
        domains=domains,
    )


def _worse_domains(config: PromotionConfig, domains: Mapping[str, Difference]) -> dict[str, Difference]:
    """The domains in which the challenger is worse by more than the margin, the worst first."""
    worse = {name: difference for name, difference in domains.items() if difference.value < -config.margin}
    return dict(sorted(worse.items(), key=lambda item: item[1].value))


def _describe_domains(config: PromotionConfig, domains: Mapping[str, Difference]) -> str:
    if not domains:
        return ""
    worse = _worse_domains(config, domains)
    if not worse:
        return f"; in none of {len(domains)} domains is it worse by more than the margin"
    name, worst = next(iter(worse.items()))
    return (
        f"; but in {len(worse)} of {len(domains)} domains it is worse by more than the margin, most in {name}: AUC "
        f"{worst.auc_second:.4f} against {worst.auc_first:.4f}, {worst.value:+.4f} (95 % interval {worst.low:+.4f} to "
        f"{worst.high:+.4f}, over {worst.units:,} {worst.unit})"
    )
