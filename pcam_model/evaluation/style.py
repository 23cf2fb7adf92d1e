"""How our pictures look: one sheet for print, no global state."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pcam_model.files import write_whole

INK, MUTED, GRID, PAPER = "#1b1f24", "#5f6873", "#e3e6ea", "#ffffff"
BLUE, RED, TEAL, AMBER = "#2b5c9e", "#b3314a", "#20857a", "#c98a1b"
STAGE = {"frozen": TEAL, "tuned": BLUE}
STAGE_NAME = {"frozen": "Frozen body", "tuned": "Fine-tuning"}

SHEET: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.5, "axes.titlesize": 9.5, "axes.labelsize": 8.5,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlepad": 8.0,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.linewidth": 0.8,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7, "axes.axisbelow": True,
    "lines.linewidth": 1.5, "lines.solid_capstyle": "round", "figure.facecolor": PAPER, "axes.facecolor": PAPER,
}  # fmt: skip


def picture(draw: Callable[[Figure], None], width: float, height: float, *, dpi: int = 200) -> bytes:
    """Draw on a fresh sheet of width x height inches; the PNG. The same input gives the same bytes."""
    with matplotlib.rc_context(SHEET):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        content = BytesIO()
        figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


def save(path: Path, draw: Callable[[Figure], None], width: float, height: float) -> Path:
    """Draw and write, whole or not at all."""
    return write_whole(path, picture(draw, width, height))


def nothing(axes: Axes, words: str) -> None:
    """An axes that says why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", color=MUTED, transform=axes.transAxes, wrap=True)
