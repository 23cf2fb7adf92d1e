"""Limits of an axis that outliers do not stretch, and marks for the values beyond them."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

OUTLIER_FACTOR = 3.0  # times the height of the quantile: what is higher is an outlier
MARK_HEIGHT = 0.97  # of a mark, as a fraction of the axes

Values = NDArray[np.floating[Any]]


def visible_range(values: Values, quantile: float = 0.9, min_span: float = 0.0) -> tuple[float, float]:
    """The limits (low, high) of an axis that shows all values but high outliers.

    Args:
        values: any shape; what is not finite does not count.
        quantile: an outlier lies more than three times as far above the lowest value as this quantile.
        min_span: the smallest distance of the limits, so that noise does not fill a figure.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    high = min(high, low + max(OUTLIER_FACTOR * (float(np.quantile(finite, quantile)) - low), min_span))
    widen = max(min_span - (high - low), 0.0) / 2
    pad = 0.06 * (high - low + 2 * widen) or 0.1
    return low - widen - pad, high + widen + pad


def mark_outliers(
    axes: Axes, x: Values, values: Values, colour: str, limit: int | None = None, height: float = MARK_HEIGHT
) -> None:
    """Draw an arrow near the upper edge for each value (n,) above the axis, and the number beside the highest.

    Args:
        axes: with its limits set.
        x: (n,).
        values: (n,); one that is not finite counts as above.
        colour: of arrows and number.
        limit: the most arrows; None: as many as there are such values.
        height: of the arrows, as a fraction of the axes.
    """
    outside = np.flatnonzero(~(values <= axes.get_ylim()[1]))
    highest = outside[np.argsort(-np.nan_to_num(values[outside], nan=np.inf), kind="stable")][:limit]
    if not highest.size:
        return
    transform = axes.get_xaxis_transform()
    heights = np.full(len(highest), height)
    axes.plot(x[highest], heights, "^", color=colour, ms=5, transform=transform, clip_on=False)
    left = axes.get_xscale() != "linear" or bool(x[highest[0]] > np.mean(axes.get_xlim()))
    axes.annotate(
        f"{values[highest[0]]:,.4g}",
        (x[highest[0]], height),
        xycoords=transform,
        textcoords="offset points",
        xytext=(-6 if left else 6, 0),
        ha="right" if left else "left",
        va="center",
        fontsize=7.5,
        color=colour,
    )
