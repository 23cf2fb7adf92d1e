"""Pictures of a training: LR curves, losses and rate; and of its result: confusion matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pcam_model.evaluation import style
from pcam_model.evaluation.evidence import LrCurve
from pcam_model.evaluation.metrics import Confusion
from pcam_model.evaluation.style import STAGE, STAGE_NAME

STAGES = ("frozen", "finetune")
MOST_DOTS = 600
History = Sequence[Mapping[str, Any]]


def lr_curves(figure: Figure, curves: Mapping[str, LrCurve]) -> None:
    """A panel a stage: smoothed loss against rate, the suggestion and the rate that was taken."""
    for stage, axes in zip(STAGES, figure.subplots(1, 2), strict=True):
        if stage in curves:
            _lr_curve(axes, stage, curves[stage])
        else:
            style.nothing(axes, "No LR search:\nthe rate was given, or the stage was left out")
        axes.set_title(STAGE_NAME[stage])


def lr_panel(figure: Figure, stage: str, curve: LrCurve) -> None:
    """One LR search by itself."""
    _lr_curve(figure.subplots(), stage, curve)


def _lr_curve(axes: Axes, stage: str, curve: LrCurve) -> None:
    rates, losses, taken = np.asarray(curve["lrs"], float), np.asarray(curve["losses"], float), curve["lr"]
    axes.plot(rates, losses, color=STAGE[stage])
    axes.set(xscale="log", xlabel="Learning rate", ylabel="Training loss (smoothed)", ylim=_loss_range(losses))
    axes.axvline(taken, color=style.RED, linewidth=1)
    axes.plot(taken, np.interp(np.log(taken), np.log(rates), losses), "o", color=style.RED, ms=5)
    left = np.log(taken / rates[0]) > 0.5 * np.log(rates[-1] / rates[0])
    axes.annotate(f"{taken:.2g} ({curve['how']})", (taken, 0.97), xycoords=("data", "axes fraction"),
                  textcoords="offset points", xytext=(-5 if left else 5, 0), ha="right" if left else "left", va="top",
                  color=style.RED, bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 1})  # fmt: skip


def _loss_range(losses: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The fall and the first climb: where the loss bursts, the interesting part would be flat."""
    finite = losses[np.isfinite(losses)]
    low, high = float(finite.min()), float(min(finite.max(), 1.6 * finite[0]))
    pad = 0.06 * (high - low) or 0.1
    return low - pad, high + pad


def losses(figure: Figure, history: History, columns: int = 2) -> None:
    """Loss of each step and epoch above, the rate below, the stages one after the other; `columns` of the legend."""
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    starts = _starts(history)
    if not starts:
        style.nothing(top, "No step was recorded")
        return style.nothing(bottom, "")
    for stage, start in starts.items():
        _stage(top, bottom, [line for line in history if line["stage"] == stage], stage, start)
    _frame(top, bottom, starts, columns)
    return None


def _stage(top: Axes, bottom: Axes, lines: History, stage: str, start: int) -> None:
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    if steps:
        at, loss = _thinned(start, steps, "loss")
        top.plot(at, loss, color=STAGE[stage], alpha=0.25, linewidth=0.7)
        top.plot(at, _smooth(loss), color=STAGE[stage], label=f"{STAGE_NAME[stage]}, training")
        bottom.plot(*_thinned(start, steps, "lr"), color=STAGE[stage])
    if epochs:
        top.plot(*_thinned(start, epochs, "valid_loss"), "o--", ms=4, linewidth=1, color=STAGE[stage], mfc=style.PAPER,
                 label=f"{STAGE_NAME[stage]}, validation")  # fmt: skip


def _thinned(start: int, lines: History, name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Steps and values, as means of neighbours where there are more than a page has dots for."""
    at = np.array([start + line["step"] for line in lines], float)
    values = np.array([line[name] for line in lines], float)
    parts = min(len(at), MOST_DOTS)
    ends = np.linspace(0, len(at), parts + 1).astype(int)[:-1]
    counts = np.diff(np.append(ends, len(at)))
    return np.add.reduceat(at, ends) / counts, np.add.reduceat(values, ends) / counts


def _frame(top: Axes, bottom: Axes, starts: Mapping[str, int], columns: int) -> None:
    for start in list(starts.values())[1:]:
        for axes in (top, bottom):
            axes.axvline(start, color=style.MUTED, linewidth=0.8, linestyle=":")
    top.set(ylabel="Cross-entropy (nats)")
    top.legend(ncols=columns, loc="upper right")
    bottom.set(xlabel="Step", ylabel="Rate", yscale="log")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _starts(history: History) -> dict[str, int]:
    """Where each stage begins on the common axis of steps."""
    starts, end = {}, 0
    for stage in STAGES:
        last = max((int(line["step"]) for line in history if line["stage"] == stage), default=None)
        if last is not None:
            starts[stage], end = end, end + last
    return starts


def _smooth(loss: np.ndarray[Any, Any], keep: float = 0.95) -> np.ndarray[Any, Any]:
    """Debiased exponential mean, which starts at the first value."""
    mean, out = 0.0, np.empty_like(loss)
    for step, value in enumerate(loss):
        mean = keep * mean + (1 - keep) * value
        out[step] = mean / (1 - keep ** (step + 1))
    return out


def confusions(figure: Figure, cells: Mapping[str, Confusion]) -> None:
    """A 2 x 2 matrix a title: counts, and shares of the true class as the colour."""
    for axes, (title, matrix) in zip(figure.subplots(1, len(cells), squeeze=False)[0], cells.items(), strict=True):
        counts = np.array(matrix).reshape(2, 2)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        for row, column in np.ndindex(2, 2):
            axes.text(column, row, f"{counts[row, column]:,}\n{shares[row, column]:.1%}", ha="center", va="center",
                      color=style.PAPER if shares[row, column] > 0.5 else style.INK)  # fmt: skip
        axes.set(xticks=[0, 1], yticks=[0, 1], xlabel="Predicted", ylabel="Actual", title=title)
        axes.set_xticklabels(["No tumour", "Tumour"])
        axes.set_yticklabels(["No tumour", "Tumour"], rotation=90, va="center")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
