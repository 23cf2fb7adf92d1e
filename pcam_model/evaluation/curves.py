"""Figures of a result: ROC and precision-recall curves with their bands, and reliability diagrams."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcam_model.core.estimate import Estimate
from pcam_model.evaluation import style
from pcam_model.evaluation.calibration import BINS
from pcam_model.evaluation.report_schema import Band, ReliabilityCurve, SplitReport
from pcam_model.evaluation.text import split_title

Splits = Mapping[str, SplitReport]
SPLIT_COLOURS = {"valid": style.TEAL, "test": style.BLUE}


def roc(figure: Figure, splits: Splits) -> None:
    """Sensitivity over 1 - specificity."""
    axes = _unit_square(figure, "1 − specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8, linestyle=":")
    for name, split in splits.items():
        _plot_band(axes, name, split.curves.grid, split.curves.roc, "AUC", split.figures["auc"])
    axes.legend(loc="lower right")


def precision_recall(figure: Figure, splits: Splits) -> None:
    """Precision over recall, above the prevalence of tumour, the precision of a random guess."""
    axes = _unit_square(figure, "Recall (sensitivity)", "Precision (PPV)")
    for name, split in splits.items():
        axes.axhline(split.tumour / split.patches, color=_colour(name), linewidth=0.8, linestyle=":")
        _plot_band(axes, name, split.curves.grid, split.curves.pr, "AP", split.figures["average_precision"])
    axes.legend(loc="lower left")


def reliability(figure: Figure, splits: Splits) -> None:
    """Observed fraction over mean predicted probability, and the histogram of the latter."""
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    top.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8, linestyle=":")
    bar_width = 0.8 / BINS / len(splits)
    for position, (name, split) in enumerate(splits.items()):
        label = f"{split_title(name)}, ECE {split.figures['ece'].value:.3f}"
        _plot_reliability(top, split.reliability, _colour(name), label)
        bars = np.array(split.reliability.mean_predicted) + (position - (len(splits) - 1) / 2) * bar_width
        heights = np.array(split.reliability.count) / split.patches
        bottom.bar(bars, heights, bar_width, color=_colour(name))
    top.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Fraction that is tumour")
    top.legend(loc="best")
    bottom.set(xlabel="Calibrated probability of tumour", ylabel="Patches")
    bottom.yaxis.set_major_formatter(lambda fraction, _: f"{fraction:.0%}")


def _plot_reliability(axes: Axes, curve: ReliabilityCurve, colour: str, label: str) -> None:
    """A line with bars of one standard error."""
    predicted, observed = np.array(curve.mean_predicted), np.array(curve.observed_fraction)
    error = np.sqrt(observed * (1 - observed) / np.array(curve.count))
    axes.vlines(predicted, observed - error, observed + error, color=colour, alpha=0.35, lw=2.5)
    axes.plot(predicted, observed, "o-", color=colour, ms=3.5, linewidth=1.1, label=label)


def _unit_square(figure: Figure, x: str, y: str) -> Axes:
    axes: Axes = figure.subplots()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    return axes


def _plot_band(axes: Axes, split: str, grid: list[float], band: Band, name: str, area: Estimate) -> None:
    value, low, high = (np.array(values, dtype=float) for values in (band.value, band.low, band.high))
    axes.fill_between(grid, low, high, color=_colour(split), alpha=0.16, linewidth=0)
    axes.plot(grid, value, color=_colour(split), label=f"{split_title(split)}, {name} {area.value:.3f}")


def _colour(split: str) -> str:
    return SPLIT_COLOURS.get(split, style.AMBER)
