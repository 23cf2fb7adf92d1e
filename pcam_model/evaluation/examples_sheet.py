"""The examples as one picture: each patch beside what spoke for the class that it was given."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pcam_model.evaluation import heatmap, style
from pcam_model.evaluation import text as words
from pcam_model.evaluation.evidence import Example

COLUMNS, WIDTH, HEIGHT = 6, 1.55, 1.2


def sheet(examples: Sequence[Example]) -> bytes:
    """A PNG with a row a group; the square marks the centre, which alone decides the label."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(groups), COLUMNS, squeeze=False)
        for row, (group, shown) in zip(rows, groups.items(), strict=True):
            row[0].set_title(group)
            for axes, example in zip(row, [*shown, *[None] * COLUMNS], strict=False):
                _example(axes, example)

    return style.picture(draw, COLUMNS * WIDTH, len(groups) * HEIGHT, dpi=140)


def _example(axes: Axes, example: Example | None) -> None:
    axes.set_axis_off()
    if example is None:
        return
    side = example.patch.shape[0]
    axes.imshow(example.patch, extent=(0, side, side, 0))
    if example.heat is not None:
        axes.imshow(heatmap.overlay(example.patch, example.heat), extent=(side + 3, 2 * side + 3, side, 0))
    axes.set(xlim=(0, 2 * side + 3), ylim=(side, 0))
    for left in (0, side + 3)[: 1 + (example.heat is not None)]:
        axes.add_patch(Rectangle((left + side / 3, side / 3), side / 3, side / 3, fill=False, lw=0.8, ec="white"))
    said = f"{words.CLASS[example.label]}, called {words.CLASS[example.predict_rows]} ({example.probability:.2f})"
    axes.text(0, side + 4, fill(said, 30), fontsize=5.5, color=style.MUTED, va="top")
