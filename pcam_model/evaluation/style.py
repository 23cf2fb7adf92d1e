"""Matplotlib style of the figures, without global state; as PNG, and as SVG in the colours of the page."""

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

INK, MUTED, GRID, PAPER = "#1b1f24", "#5f6873", "#e3e6ea", "#fefefe"
BLUE, RED, TEAL, AMBER = "#2b5c9e", "#b3314a", "#20857a", "#c98a1b"
STAGE_COLOURS = {"frozen": TEAL, "finetune": BLUE}
STAGE_TITLES = {"frozen": "Frozen body", "finetune": "Fine-tuning"}
CSS_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", BLUE: "blue", RED: "red", TEAL: "teal",
             AMBER: "amber"}  # fmt: skip

RC_PARAMS: dict[Any, Any] = {
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


def draw_png(draw: Draw, width: float, height: float, *, dpi: int = 200) -> bytes:
    """A PNG of width x height inches, with a palette. The same input gives the same bytes."""
    with matplotlib.rc_context(RC_PARAMS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        content = BytesIO()
        figure.savefig(content, format="png", dpi=dpi)
    return _with_palette(content)


def _with_palette(png: BytesIO) -> bytes:
    """The PNG with 256 colours, which takes a third of the bytes."""
    content = BytesIO()
    Image.open(png).convert("RGB").quantize(256).save(content, format="png", optimize=True)
    return content.getvalue()


def draw_svg(name: str, draw: Draw, width: float, height: float) -> str:
    """An `<svg>` element whose colours are the page's CSS variables and whose width is the page's.

    `name` keeps the ids of several figures on one page apart.
    """
    with matplotlib.rc_context(
        {**RC_PARAMS, "svg.hashsalt": name, "figure.facecolor": "none", "axes.facecolor": "none"}
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        content = BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline_svg(content.getvalue().decode(), name)


def _inline_svg(text: str, name: str) -> str:
    """The `<svg>` element of matplotlib's SVG file, without size, metadata and fonts of its own."""
    text = text[text.index("<svg") :]
    text = re.sub(r'(?<=\s)(width|height)="[^"]*pt"', "", text, count=2)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    text = text.replace("'DejaVu Sans'", "system-ui, sans-serif")
    for colour, variable in CSS_VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text.replace("<svg ", '<svg role="img" ', 1)


def empty_axes(axes: Axes, message: str) -> None:
    """Show a message instead of an empty axes."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", color=MUTED, transform=axes.transAxes, wrap=True)
