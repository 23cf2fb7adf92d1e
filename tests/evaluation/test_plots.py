"""Figures of a training keep what matters visible when something explodes."""

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from pcam_model.evaluation import plots
from pcam_model.evaluation.outliers import visible_range
from pcam_model.evaluation.text import lr_sentence
from tests.evaluation.conftest import history, lr_curve


def outlier_labels(figure: Figure) -> list[str]:
    """The numbers beside the arrows of the first axes."""
    axes = figure.axes[0]
    arrows = [line for line in axes.lines if line.get_marker() == "^"]
    return [text.get_text() for text in axes.texts] if arrows else []


def metrics_rows() -> list[dict[str, Any]]:
    """The rows of metrics.jsonl of both stages."""
    return history("frozen", 60, 2, 0.7, 0.45) + history("finetune", 120, 4, 0.45, 0.2)


def test_an_epoch_that_exploded_leaves_the_rest_visible_and_is_marked() -> None:
    rows, figure = metrics_rows(), Figure()
    next(row for row in rows if row["kind"] == "epoch" and row["stage"] == "finetune")["valid_loss"] = 4457.2
    plots.losses(figure, rows)
    low, high = figure.axes[0].get_ylim()
    assert low < 0.15
    assert 0.7 < high < 3
    assert outlier_labels(figure) == ["4,457"]


@pytest.mark.parametrize("value", [1e4, float("nan"), float("inf")])
def test_a_step_that_exploded_does_not_lift_the_smoothed_line(value: float) -> None:
    rows, figure = metrics_rows(), Figure()
    rows[100]["loss"] = value
    plots.losses(figure, rows)
    smoothed = next(line for line in figure.axes[0].lines if line.get_label() == "Fine-tuning, training")
    assert np.max(smoothed.get_ydata()) < 0.8
    assert outlier_labels(figure) == [f"{value:,.4g}"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_loss_that_is_not_finite_is_marked_too(value: float) -> None:
    rows, figure = metrics_rows(), Figure()
    next(row for row in rows if row["kind"] == "epoch")["valid_loss"] = value
    plots.losses(figure, rows)
    assert np.isfinite(figure.axes[0].get_ylim()).all()
    assert outlier_labels(figure) == [f"{value:.4g}"]


def test_an_ordinary_training_is_shown_whole_and_without_arrows() -> None:
    rows, figure = metrics_rows(), Figure()
    plots.losses(figure, rows)
    assert outlier_labels(figure) == []
    assert figure.axes[0].get_ylim()[1] > max(row["loss"] for row in rows if row["kind"] == "step")


def test_the_legend_of_losses_covers_no_line() -> None:
    figure = Figure()
    plots.losses(figure, metrics_rows())
    figure.canvas.draw()
    axes = figure.axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 >= axes.get_window_extent().y1


def test_an_lr_curve_that_explodes_keeps_its_fall_visible() -> None:
    figure, curve = Figure(), lr_curve(1e-3)
    plots.lr_panel(figure, "finetune", curve)
    low, high = figure.axes[0].get_ylim()
    assert high - low < 1.5 < max(curve.losses)
    assert f"{max(curve.losses):,.4g}" in outlier_labels(figure)


def test_a_curve_without_information_looks_flat_and_says_so() -> None:
    losses = [1.3 + 1e-4 * (i % 7) for i in range(90)]
    reason = "the curve holds no information: and so on"
    update = {"losses": losses, "method": "default", "informative": False, "reason": reason}
    curve, figure = lr_curve(1e-3).model_copy(update=update), Figure()
    plots.lr_panel(figure, "frozen", curve)
    low, high = figure.axes[0].get_ylim()
    assert high - low >= plots.MIN_LR_SPAN
    assert "No information in this curve" in [text.get_text() for text in figure.axes[0].texts]
    assert "The curve holds no information: and so on." in lr_sentence("frozen", curve)


def test_an_axis_without_a_finite_value_has_limits() -> None:
    assert visible_range(np.array([np.nan, np.inf])) == (0.0, 1.0)
