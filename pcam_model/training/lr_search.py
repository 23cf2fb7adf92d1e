"""LR search (Smith 2015, fastai's numbers): how high may the rate be before the loss climbs?"""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from pcam_model.data.augment import Sight
from pcam_model.data.batches import Batches
from pcam_model.errors import BadPlan
from pcam_model.files import write_whole
from pcam_model.records import Plan, Record
from pcam_model.training.network import PatchNetwork
from pcam_model.training.optimizer import make_optimizer
from pcam_model.training.step import TrainState, loss_of, train_step

LOWEST, HIGHEST = 1e-7, 10.0
MOMENTUM = 0.9  # AdamW's usual one: the search runs without the cycle
SMOOTHING, DIVERGED = 0.98, 4.0
DROP_FIRST, DROP_LAST = 10, 5
PLATEAU = 0.5
SEARCH = 10  # added to a stage's number: a place of its own

Suggest = Literal["valley", "steep", "minimum"]


class SearchPlan(Plan):
    """How the learning rate is looked for, where a stage's rate is `search`."""

    steps: int = Field(100, ge=20, le=2000)
    """Steps from 1e-7 to 10, exponentially spaced."""
    suggest: Suggest = "valley"
    """valley: two thirds from the plateau to the lowest loss; steep: the steepest fall; minimum: lowest loss / 10."""


class LrCurve(Record):
    """What the search saw and what it suggests."""

    path: str
    stage: str
    rates: list[float]
    losses: list[float]
    """Smoothed (debiased exponential mean, 0.98)."""
    suggestion: float
    how: Suggest
    suggestions: dict[str, float]
    """What each of the ways would have suggested."""


def search_lr(
    network: PatchNetwork,
    part: Batches,
    plan: SearchPlan,
    multipliers: list[float],
    batch: int,
    seed: int,
    stage: tuple[str, int],
    folder: Path,
    watch: Callable[[int, int], None] | None = None,
    sight: Sight | None = None,
) -> LrCurve:
    """Train with a growing rate until the loss explodes; network and random state are left as they were.

    Raises:
        BadPlan: the loss was not finite from the start, so nothing can be suggested.
    """
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        rates, losses = _climb(network, part, plan.steps, multipliers, batch, (seed, stage[1] + SEARCH), watch, sight)
    finally:
        network.load_state_dict(before)
    suggestions = suggest(np.array(rates), np.array(losses), stage[0])
    curve = LrCurve(
        path=str(folder / "lr.json"),
        stage=stage[0],
        rates=rates,
        losses=losses,
        suggestion=suggestions[plan.suggest],
        how=plan.suggest,
        suggestions=suggestions,
    )
    write_whole(folder / "lr.json", json.dumps(curve.model_dump(exclude={"path"}), indent=1).encode())
    return curve


def _climb(
    network: PatchNetwork,
    part: Batches,
    steps: int,
    multipliers: list[float],
    batch: int,
    place: tuple[int, int],
    watch: Callable[[int, int], None] | None,
    sight: Sight | None,
) -> tuple[list[float], list[float]]:
    """Rates and smoothed losses until the loss explodes.

    What is smoothed is each batch's loss less what the untrained network loses on that same batch under the same
    dropout: how hard a batch is hides what a rate does to it, and this takes it out.
    """
    state, untrained = TrainState(network.train(), make_optimizer(network, multipliers)), deepcopy(network).train()
    rates, gains, losses, starts = list[float](), list[float](), list[float](), list[float]()
    best = math.inf
    for step in range(steps):
        epoch, k = divmod(step, len(part) // batch)
        which = part.order(*place, epoch)[k * batch : (k + 1) * batch]
        images, labels = part.augmented(which, *place, epoch, k, sight=sight)
        with torch.no_grad():
            starts.append(float(loss_of(untrained, images, labels, *place, epoch, k)))
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1))
        losses.append(float(train_step(state, images, labels, rate, MOMENTUM, *place, epoch, k)))
        smooth = smoothed(losses)
        if not math.isfinite(smooth) or smooth > DIVERGED * best:
            break
        best = min(best, smooth)
        rates.append(rate)
        gains.append(smoothed([loss - start for loss, start in zip(losses, starts, strict=True)]))
        if watch:
            watch(step + 1, steps)
    level = sum(starts) / max(len(starts), 1)
    return rates, [level + gain for gain in gains]


def smoothed(values: list[float]) -> float:
    """The debiased exponential mean at the end of the values."""
    mean = 0.0
    for value in values:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
    return mean / (1 - SMOOTHING ** len(values))


def suggest(rates: np.ndarray, losses: np.ndarray, stage: str = "") -> dict[str, float]:
    """The rate that each way suggests, for a smoothed curve: rates (n,), losses (n,).

    Raises:
        BadPlan: fewer than four points are left once the first 10 and the last 5 are dropped.
    """
    rates, losses = rates[DROP_FIRST:-DROP_LAST], losses[DROP_FIRST:-DROP_LAST]
    if len(rates) < 4:
        raise BadPlan(
            f"the LR search of the {stage} stage saw the loss explode after {len(rates) + DROP_FIRST + DROP_LAST} "
            f"steps, too few to suggest a rate; set {stage}.rate yourself, or raise search.steps"
        )
    return {
        "valley": float(rates[_valley(losses)]),
        "steep": float(rates[(np.diff(losses) / np.diff(np.log(rates))).argmin()]),
        "minimum": float(rates[losses.argmin()] / 10),
    }


def _valley(losses: np.ndarray) -> int:
    """Two thirds along the way from where the loss leaves its plateau to its lowest point.

    fastai takes the longest decreasing subsequence for that way. On a smooth curve it begins with falls of a
    ten-thousandth, decades of rate before anything is learnt, so that it ends in rates far too low; here the plateau is
    left when half of the whole fall is behind.
    """
    bottom = int(losses.argmin())
    edge = losses[: bottom + 1].max()
    start = int(np.flatnonzero(losses[: bottom + 1] >= edge - PLATEAU * (edge - losses[bottom]))[-1])
    return start + 2 * (bottom - start) // 3
