"""How our pictures look: one sheet for print, no global state; the same as PNG and as SVG that follows the page."""

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1b1f24", "#5f6873", "#e3e6ea", "#fefefe"
BLUE, RED, TEAL, AMBER = "#2b5c9e", "#b3314a", "#20857a", "#c98a1b"
STAGE = {"frozen": TEAL, "finetune": BLUE}
STAGE_NAME = {"frozen": "Frozen body", "finetune": "Fine-tuning"}
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", BLUE: "blue", RED: "red", TEAL: "teal",
             AMBER: "amber"}  # fmt: skip

SHEET: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.5, "axes.titlesize": 9.5, "axes.labelsize": 8.5,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlepad": 8.0,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.linewidth": 0.8,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7, "axes.axisbelow": True,
    "lines.linewidth": 1.5, "lines.solid_capstyle": "round", "figure.facecolor": PAPER, "axes.facecolor": PAPER,
    "svg.fonttype": "none",
}  # fmt: skip

Draw = Callable[[Figure], None]


def picture(draw: Draw, width: float, height: float, *, dpi: int = 200) -> bytes:
    """Draw on a fresh sheet of width x height inches; the PNG. The same input gives the same bytes."""
    with matplotlib.rc_context(SHEET):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        content = BytesIO()
        figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


def svg(name: str, draw: Draw, width: float, height: float) -> str:
    """Draw as an `<svg>` for the inside of a page: its colours are the page's variables, its width is the page's.

    `name` keeps the ids of several pictures on one page apart.
    """
    with matplotlib.rc_context({**SHEET, "svg.hashsalt": name, "figure.facecolor": "none", "axes.facecolor": "none"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        content = BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_page(content.getvalue().decode(), name)


def _for_page(text: str, name: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r'(?<=\s)(width|height)="[^"]*pt"', "", text, count=2)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    text = text.replace("'DejaVu Sans'", "system-ui, sans-serif")
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text.replace("<svg ", '<svg role="img" ', 1)


def nothing(axes: Axes, words: str) -> None:
    """An axes that says why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", color=MUTED, transform=axes.transAxes, wrap=True)
