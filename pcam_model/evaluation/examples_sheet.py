"""The examples as one PNG: each patch beside its heatmap."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pcam_model.evaluation import heatmap, style
from pcam_model.evaluation.evidence import Example
from pcam_model.evaluation.text import CLASS_TITLES

COLUMNS, WIDTH, HEIGHT = 6, 1.55, 1.2  # width and height of an example in inches
GAP = 3  # between patch and heatmap, in pixels of the patch
DPI = 120  # about the resolution of a patch


def draw_examples_sheet(examples: Sequence[Example]) -> bytes:
    """A PNG with a row per group; the square marks the centre, which alone decides the label."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(groups), COLUMNS, squeeze=False)
        for row, (group, members) in zip(rows, groups.items(), strict=True):
            row[0].set_title(group)
            for axes, example in zip(row, [*members, *[None] * COLUMNS], strict=False):
                _draw_example(axes, example)

    return style.draw_png(draw, COLUMNS * WIDTH, len(groups) * HEIGHT, dpi=DPI)


def _draw_example(axes: Axes, example: Example | None) -> None:
    axes.set_axis_off()
    if example is None:
        return
    size = example.patch.shape[0]
    axes.imshow(example.patch, extent=(0, size, size, 0))
    lefts = [0]
    if example.heat is not None:
        lefts.append(size + GAP)
        axes.imshow(heatmap.overlay(example.patch, example.heat), extent=(size + GAP, 2 * size + GAP, size, 0))
    axes.set(xlim=(0, 2 * size + GAP), ylim=(size, 0))
    for left in lefts:
        axes.add_patch(Rectangle((left + size / 3, size / 3), size / 3, size / 3, fill=False, lw=0.8, ec="white"))
    label, predicted = CLASS_TITLES[example.label], CLASS_TITLES[example.predicted]
    caption = fill(f"{label}, called {predicted} ({example.probability:.2f})", 30)
    axes.text(0, size + GAP + 1, caption, fontsize=5.5, color=style.MUTED, va="top")
