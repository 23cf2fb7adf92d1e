"""Read a learning rate range test: where it exploded, whether it holds information, and which rate it suggests."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import ConfigError
from pcam_model.core.schema import Record
from pcam_model.core.smoothing import debiased_ema
from pcam_model.core.stage_names import StageName

LOWEST, HIGHEST = 1e-7, 10.0
SMOOTHING, DIVERGED = 0.98, 4.0
DROP_FIRST, DROP_LAST = 10, 5
PLATEAU = 0.5
EVALUATE_EVERY = 2  # steps from one loss in evaluation mode to the next
CHANCE_LOSS = math.log(2)  # the loss of a coin: what is below it has not exploded
# Standard errors that the loss has to fall by. The lowest of some 90 points is chosen, and its error is estimated from
# as few as ten steps: 3 would take one curve of pure noise in 20 for informative, 5 takes one in 400.
SIGNIFICANT = 5.0
# Of the highest stable rate, the most that is suggested: the test spends a few steps near a rate, even a short cycle
# some dozens. At half of it ResNet-18 from random weights still reached 4 to 6 nats after an epoch of 20 steps.
STABLE_FRACTION = 0.25
# fastai's fine_tune: 2e-3 for the head, half of it for the whole network.
DEFAULT_LR: dict[StageName, float] = {"frozen": 2e-3, "finetune": 1e-3}

SuggestionMethod = Literal["valley", "steep", "minimum"]
Floats = NDArray[np.float64]


class LrCurve(Record):
    """Loss over learning rate, and the suggested learning rate."""

    path: str
    stage: StageName
    lrs: list[float]
    losses: list[float]
    """Smoothed (debiased exponential moving average, 0.98)."""
    suggestion: float
    method: SuggestionMethod | Literal["default"]
    """default: the curve is not informative, and the stage's default rate is suggested."""
    suggestions: dict[str, float]
    """The suggestion of each method, a quarter of `stable_lr` at most."""
    informative: bool = True
    """Whether the loss falls by more than its noise explains."""
    reason: str = ""
    """In words: the fall with its standard error, the suggestion, and the highest stable rate."""
    stable_lr: float = HIGHEST
    """The highest rate before the loss exploded, in training or in evaluation mode; 10 where it did not."""


def lr_at(step: int, steps: int) -> float:
    """The rate of a step (0 .. steps - 1): exponentially from 1e-7 to 10."""
    return float(LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1)))


def exploded_at(losses: list[float], evaluations: list[float]) -> int | None:
    """The number of stable steps before the loss exploded, in training or in evaluation mode; None: it did not.

    Args:
        losses: of each step; their moving average counts.
        evaluations: of every second step, in evaluation mode, all of the same patches; those of the first steps do not
            count, since BatchNorm's running statistics still settle.
    """
    ends = list[int]()
    if (stable := _stable_count(smoothed(losses))) < len(losses):
        ends.append(stable)
    settled = evaluations[DROP_FIRST // EVALUATE_EVERY :]
    if (stable := _stable_count(settled, harmless=CHANCE_LOSS)) < len(settled):
        ends.append(DROP_FIRST + EVALUATE_EVERY * (stable - 1) + 1)
    return min(ends, default=None)


def read_curve(
    losses: list[float],
    starts: list[float],
    evaluations: list[float],
    stage: StageName,
    method: SuggestionMethod,
    steps: int,
    path: Path,
) -> LrCurve:
    """The curve and its suggestion.

    Args:
        losses: of each step.
        starts: what the untrained network loses on the same batches, under the same dropout.
        evaluations: as in `exploded_at`.
        stage: of training.
        method: how the rate is suggested where the curve is informative; else it is the stage's default.
        steps: of the whole test.
        path: recorded in the curve.

    Raises:
        ConfigError: the loss exploded after too few steps.
    """
    end = exploded_at(losses, evaluations)
    kept = len(losses) if end is None else end
    gains = [loss - start for loss, start in zip(losses[:kept], starts[:kept], strict=True)]
    lrs, curve = [lr_at(step, steps) for step in range(kept)], _smoothed_losses(gains, starts[:kept])
    drop_last = 0 if kept < _stable_count(smoothed(losses)) else DROP_LAST  # 0: cut while training still went well
    stable = lrs[-1] if end else HIGHEST
    highest = STABLE_FRACTION * stable
    suggestions = suggest(np.array(lrs), np.array(curve), stage, drop_last)
    suggestions = {name: min(lr, highest) for name, lr in suggestions.items()}
    fall, error = fall_and_error(gains)
    informative = fall > SIGNIFICANT * error
    chosen = suggestions[method] if informative else min(DEFAULT_LR[stage], highest)
    return LrCurve(
        path=str(path),
        stage=stage,
        lrs=lrs,
        losses=curve,
        suggestion=chosen,
        method=method if informative else "default",
        suggestions=suggestions,
        informative=informative,
        reason=_reason(fall, error, stable, chosen, method if informative else ""),
        stable_lr=stable,
    )


def fall_and_error(gains: list[float]) -> tuple[float, float]:
    """How far the smoothed curve falls to its lowest point, and the standard error of that point.

    Neighbouring batches share nearly one rate, so half the mean square of their differences is the variance of one
    (von Neumann), whatever the trend; it is weighted as the moving average weighs the batches.
    """
    lowest = DROP_FIRST + int(np.argmin(smoothed(gains)[DROP_FIRST:]))
    weights = SMOOTHING ** np.arange(lowest, -1, -1)
    weights /= weights.sum()
    variances = np.diff(gains[: lowest + 1]) ** 2 / 2
    fall = -float((weights * gains[: lowest + 1]).sum())
    return fall, float(np.sqrt((weights[1:] ** 2 * variances).sum()))


def smoothed(values: list[float]) -> list[float]:
    """The debiased exponential moving average after each of the values."""
    return [float(value) for value in debiased_ema(values, SMOOTHING)]


def suggest(lrs: Floats, losses: Floats, stage: str = "", drop_last: int = DROP_LAST) -> dict[str, float]:
    """The suggestion of each method for a smoothed curve: rates (n,), losses (n,).

    Args:
        lrs: ascending.
        losses: smoothed.
        stage: for the message.
        drop_last: points left out at the end; 0 where the curve was cut before anything exploded.

    Raises:
        ConfigError: fewer than four points are left once the first 10 and the last ones are dropped.
    """
    end = len(lrs) - drop_last
    lrs, losses = lrs[DROP_FIRST:end], losses[DROP_FIRST:end]
    if len(lrs) < 4:
        raise ConfigError(
            f"the LR range test of the {stage} stage saw the loss explode after {end + drop_last} steps, too few to "
            f"suggest a rate; set {stage}.lr yourself, or raise lr_finder.steps"
        )
    return {
        "valley": float(lrs[_valley(losses)]),
        "steep": float(lrs[(np.diff(losses) / np.diff(np.log(lrs))).argmin()]),
        "minimum": float(lrs[losses.argmin()] / 10),
    }


def _smoothed_losses(gains: list[float], starts: list[float]) -> list[float]:
    """Smoothed losses, from each batch's loss less the untrained network's: how hard a batch is then hides nothing."""
    level = sum(starts) / max(len(starts), 1)
    return [level + gain for gain in smoothed(gains)]


def _stable_count(values: list[float], harmless: float = 0.0) -> int:
    """How many values come before the first that is not finite, or is four times the best and above `harmless`."""
    best = math.inf
    for count, value in enumerate(values):
        if not math.isfinite(value) or value > max(DIVERGED * best, harmless):
            return count
        best = min(best, value)
    return len(values)


def _reason(fall: float, error: float, stable: float, chosen: float, method: str) -> str:
    """The result of the test in words; `method` is empty where the curve is not informative."""
    size = f"the loss falls by {fall:.2g} with a standard error of {error:.2g}"
    if method:
        result = f"{size}; {method} suggests {chosen:.2g}"
    else:
        result = (
            f"the curve holds no information: {size}, expected at least {SIGNIFICANT:g} standard errors; the learning "
            f"rate is the stage's default, {chosen:.2g}"
        )
    return f"{result}; the highest stable rate is {stable:.2g}"


def _valley(losses: Floats) -> int:
    """Two thirds along the way from where the loss leaves its plateau to its lowest point.

    fastai takes the longest decreasing subsequence for that way. On a smooth curve it begins with falls of a
    ten-thousandth, decades of rate before anything is learnt, so that it ends in rates far too low; here the plateau is
    left when half of the whole fall is behind.
    """
    bottom = int(losses.argmin())
    edge = losses[: bottom + 1].max()
    start = int(np.flatnonzero(losses[: bottom + 1] >= edge - PLATEAU * (edge - losses[bottom]))[-1])
    return start + 2 * (bottom - start) // 3
