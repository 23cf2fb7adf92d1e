"""Figures of a training: LR curves, losses and learning rate; and confusion matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pcam_model.core.smoothing import debiased_ema
from pcam_model.core.stage_names import STAGE_NAMES
from pcam_model.evaluation import style
from pcam_model.evaluation.metrics import Confusion
from pcam_model.evaluation.outliers import mark_outliers, visible_range
from pcam_model.evaluation.style import STAGE_COLOURS, STAGE_TITLES
from pcam_model.training.lr_curve import LrCurve

MAX_POINTS = 600  # of a line; more do not fit on a page
EMA_BETA = 0.95
MIN_LR_SPAN = 0.1  # nats: an LR curve flatter than this looks flat
LOWER_MARK = 0.87  # height of a mark below another mark or label, as a fraction of the axes
BEHIND_TEXT = {"facecolor": style.PAPER, "edgecolor": "none", "pad": 1}
History = Sequence[Mapping[str, Any]]


def lr_curves(figure: Figure, curves: Mapping[str, LrCurve]) -> None:
    """One panel per stage: smoothed loss over learning rate, and the suggestion."""
    for stage, axes in zip(STAGE_NAMES, figure.subplots(1, 2), strict=True):
        if stage in curves:
            _lr_curve(axes, stage, curves[stage])
        else:
            style.empty_axes(axes, "No LR range test:\nthe learning rate was given, or the stage was left out")
        axes.set_title(STAGE_TITLES[stage])


def lr_panel(figure: Figure, stage: str, curve: LrCurve) -> None:
    """The LR range test of one stage."""
    _lr_curve(figure.subplots(), stage, curve)


def _lr_curve(axes: Axes, stage: str, curve: LrCurve) -> None:
    lrs, losses, suggestion = np.array(curve.lrs), np.array(curve.losses), curve.suggestion
    axes.plot(lrs, losses, color=STAGE_COLOURS[stage])
    limits = visible_range(losses, 0.5, MIN_LR_SPAN)
    axes.set(xscale="log", xlabel="Learning rate", ylabel="Training loss (smoothed)", ylim=limits)
    mark_outliers(axes, lrs, losses, STAGE_COLOURS[stage], limit=1, height=LOWER_MARK)
    axes.axvline(suggestion, color=style.RED, linewidth=1)
    axes.plot(suggestion, np.interp(np.log(suggestion), np.log(lrs), losses), "o", color=style.RED, ms=5)
    left = np.log(suggestion / lrs[0]) > 0.5 * np.log(lrs[-1] / lrs[0])
    axes.annotate(f"{suggestion:.2g} ({curve.method})", (suggestion, 0.97), xycoords=("data", "axes fraction"),
                  textcoords="offset points", xytext=(-5 if left else 5, 0), ha="right" if left else "left", va="top",
                  color=style.RED, bbox=BEHIND_TEXT)  # fmt: skip
    if not curve.informative:
        text = "No information in this curve"
        axes.text(0.02, 0.03, text, transform=axes.transAxes, color=style.RED, bbox=BEHIND_TEXT)


def losses(figure: Figure, history: History, columns: int = 2) -> None:
    """Loss of each step and epoch above, learning rate below, stage after stage; `columns`: of the legend."""
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    starts = _starts(history)
    if not starts:
        style.empty_axes(top, "No step was recorded")
        return style.empty_axes(bottom, "")
    top.set_ylim(visible_range(_all_losses(history)))
    for stage, start in starts.items():
        _stage(top, bottom, [line for line in history if line["stage"] == stage], stage, start)
    _label(top, bottom, starts, columns)
    return None


def _all_losses(history: History) -> np.ndarray[Any, Any]:
    """The losses of all steps and epochs, for the limits of their axis."""
    names = {"step": "loss", "epoch": "valid_loss"}
    return np.array([line[names[line["kind"]]] for line in history if line["kind"] in names], float)


def _stage(top: Axes, bottom: Axes, lines: History, stage: str, start: int) -> None:
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    if steps:
        at, loss = _thin(start, steps, "loss")
        top.plot(at, loss, color=STAGE_COLOURS[stage], alpha=0.25, linewidth=0.7)
        visible = np.fmin(loss, top.get_ylim()[1])  # an exploded step does not lift the mean of the next hundred
        title = f"{STAGE_TITLES[stage]}, training"
        top.plot(at, debiased_ema(visible, EMA_BETA), color=STAGE_COLOURS[stage], label=title)
        bottom.plot(*_thin(start, steps, "lr"), color=STAGE_COLOURS[stage])
        mark_outliers(top, at, loss, STAGE_COLOURS[stage], limit=1, height=LOWER_MARK)
    if epochs:
        at, loss = _thin(start, epochs, "valid_loss")
        title = f"{STAGE_TITLES[stage]}, validation"
        top.plot(at, loss, "o--", ms=4, linewidth=1, color=STAGE_COLOURS[stage], mfc=style.PAPER, label=title)
        mark_outliers(top, at, loss, STAGE_COLOURS[stage])


def _thin(start: int, lines: History, name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Steps and values; where there are more than `MAX_POINTS`, means of neighbours."""
    at = np.array([start + line["step"] for line in lines], float)
    values = np.array([line[name] for line in lines], float)
    points = min(len(at), MAX_POINTS)
    bounds = np.linspace(0, len(at), points + 1).astype(int)[:-1]
    counts = np.diff(np.append(bounds, len(at)))
    return np.add.reduceat(at, bounds) / counts, np.add.reduceat(values, bounds) / counts


def _label(top: Axes, bottom: Axes, starts: Mapping[str, int], columns: int) -> None:
    for start in list(starts.values())[1:]:
        for axes in (top, bottom):
            axes.axvline(start, color=style.MUTED, linewidth=0.8, linestyle=":")
    top.set(ylabel="Cross-entropy (nats)")
    top.legend(ncols=columns, loc="lower right", bbox_to_anchor=(1, 1.01), borderaxespad=0)
    bottom.set(xlabel="Step", ylabel="LR", yscale="log")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _starts(history: History) -> dict[str, int]:
    """The offset of each stage on the common axis of steps."""
    starts: dict[str, int] = {}
    end = 0
    for stage in STAGE_NAMES:
        last = max((int(line["step"]) for line in history if line["stage"] == stage), default=None)
        if last is not None:
            starts[stage], end = end, end + last
    return starts


def confusions(figure: Figure, matrices: Mapping[str, Confusion]) -> None:
    """A confusion matrix per title: counts, and fractions of the true class as colour."""
    for axes, (title, matrix) in zip(
        figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True
    ):
        counts = np.array(matrix).reshape(2, 2)
        fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        for row, column in np.ndindex(2, 2):
            axes.text(column, row, f"{counts[row, column]:,}\n{fractions[row, column]:.1%}", ha="center", va="center",
                      color=style.PAPER if fractions[row, column] > 0.5 else style.INK)  # fmt: skip
        axes.set(xticks=[0, 1], yticks=[0, 1], xlabel="Predicted", ylabel="Actual", title=title)
        axes.set_xticklabels(["No tumour", "Tumour"])
        axes.set_yticklabels(["No tumour", "Tumour"], rotation=90, va="center")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
