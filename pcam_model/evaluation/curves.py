"""Pictures of a result: ROC and precision-recall with their bands, and reliability."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcam_model.evaluation import style
from pcam_model.evaluation.calibration import BINS

Sides = Mapping[str, Mapping[str, Any]]
"""Name of a side to what `summary.summarise` says of it."""
SIDE_COLOUR = {"valid": style.TEAL, "test": style.BLUE}
SIDE_NAME = {"valid": "Validation", "test": "Test"}


def roc(figure: Figure, sides: Sides) -> None:
    """Sensitivity against 1 - specificity."""
    axes = _square(figure, "1 − specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8, linestyle=":")
    for name, side in sides.items():
        _band(axes, name, side, "roc", "auc", "AUC")
    axes.legend(loc="lower right")


def precision_recall(figure: Figure, sides: Sides) -> None:
    """Precision against recall, over the share of tumour that a guess would have as its precision."""
    axes = _square(figure, "Recall (sensitivity)", "Precision (PPV)")
    for name, side in sides.items():
        axes.axhline(side["tumour"] / side["count"], color=_colour(name), linewidth=0.8, linestyle=":")
        _band(axes, name, side, "pr", "average_precision", "AP")
    axes.legend(loc="lower left")


def reliability(figure: Figure, sides: Sides) -> None:
    """What was said against what was so, and below it how often each was said."""
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    top.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8, linestyle=":")
    for at, (name, side) in enumerate(sides.items()):
        bins = {key: np.asarray(values) for key, values in side["reliability"].items()}
        spread = np.sqrt(bins["observed_fraction"] * (1 - bins["observed_fraction"]) / bins["count"])
        ece = f"{_name(name)}, ECE {side['figures']['ece']['value']:.3f}"
        top.vlines(
            bins["mean_predicted"],
            bins["observed_fraction"] - spread,
            bins["observed_fraction"] + spread,
            color=_colour(name),
            alpha=0.35,
            lw=2.5,
        )
        top.plot(
            bins["mean_predicted"],
            bins["observed_fraction"],
            "o-",
            color=_colour(name),
            ms=3.5,
            linewidth=1.1,
            label=ece,
        )
        width = 0.8 / BINS / len(sides)
        bottom.bar(bins["mean_predicted"] + (at - (len(sides) - 1) / 2) * width, bins["count"] / side["count"], width,
                   color=_colour(name))  # fmt: skip
    top.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Share that is tumour")
    top.legend(loc="best")
    bottom.set(xlabel="Calibrated probability of tumour", ylabel="Patches")
    bottom.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


def _square(figure: Figure, x: str, y: str) -> Axes:
    axes: Axes = figure.subplots()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    return axes


def _band(axes: Axes, name: str, side: Mapping[str, Any], curve: str, figure: str, label: str) -> None:
    value, low, high = np.asarray(side["curves"][curve], dtype=float)
    grid = np.asarray(side["curves"]["grid"])
    axes.fill_between(grid, low, high, color=_colour(name), alpha=0.16, linewidth=0)
    axes.plot(grid, value, color=_colour(name), label=f"{_name(name)}, {label} {side['figures'][figure]['value']:.3f}")


def _colour(name: str) -> str:
    return SIDE_COLOUR.get(name, style.AMBER)


def _name(name: str) -> str:
    return SIDE_NAME.get(name, name)
