"""The report as a self-contained HTML page, and the model card."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pcam_model.core.estimate import METRIC_TITLES
from pcam_model.core.stage_names import STAGE_NAMES
from pcam_model.evaluation import curves, heatmap, metrics, plots, style, text
from pcam_model.evaluation.evidence import Evidence, Example
from pcam_model.evaluation.report_schema import ReportContent


@dataclass(frozen=True)
class LrFigure:
    """The figure of an LR range test, and its caption."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Figures:
    """The figures of the page, as SVG."""

    roc: Markup
    pr: Markup
    reliability: Markup
    lr: list[LrFigure]
    losses_wide: Markup
    losses_narrow: Markup


@dataclass(frozen=True)
class ExampleFigure:
    """An example with its images as data URIs; `heat` is None for a blank heatmap."""

    id: str
    patch: str
    heat: str | None
    predicted: str
    caption: str


def render_page(content: ReportContent, evidence: Evidence) -> bytes:
    """The report as HTML: no script, no address, every image inside."""
    environment = template_environment(autoescape=True)
    css = environment.get_template("report.css").render()
    page = environment.get_template("report.html.j2").render(
        report=content,
        text=text.write_sentences(content),
        css=Markup(css),  # noqa: S704
        figures=_figures(content, evidence),
        examples=_group_examples(evidence.examples),
    )
    return page.encode()


def render_model_card(content: ReportContent) -> bytes:
    """The model card, in Markdown."""
    template = template_environment(autoescape=False).get_template("MODEL_CARD.md.j2")
    return template.render(report=content, text=text.write_sentences(content)).encode()


def template_environment(*, autoescape: bool) -> Environment:
    """Jinja's environment of the templates, with the filters for figures."""
    environment = Environment(
        loader=PackageLoader("pcam_model.evaluation"),
        autoescape=autoescape,  # noqa: S701  # Markdown is not escaped
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "value": text.format_value,
        "estimate": text.format_estimate,
        "cost": text.format_cost,
        "percent": lambda fraction: f"{fraction:.1%}",
        "count": lambda number: f"{number:,}",
        "point": text.point_title,
        "split": text.split_title,
        "sentence": text.as_sentence,
        "tta_gain": text.tta_sentence,
        "spaces": lambda name: str(name).replace("_", " "),
        "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    environment.globals |= {
        "metric_titles": METRIC_TITLES,
        "abstention_titles": text.ABSTENTION_TITLES,
        "lower_is_better": metrics.LOWER_IS_BETTER,
        "stage_titles": style.STAGE_TITLES,
    }
    return environment


def _figures(content: ReportContent, evidence: Evidence) -> Figures:
    splits, history = content.splits, evidence.history
    return Figures(
        roc=_svg("roc", partial(curves.roc, splits=splits), 3.5, 3.3),
        pr=_svg("pr", partial(curves.precision_recall, splits=splits), 3.5, 3.3),
        reliability=_svg("rel", partial(curves.reliability, splits=splits), 3.5, 3.3),
        lr=[_lr_figure(stage, evidence) for stage in STAGE_NAMES if stage in evidence.lr_curves],
        losses_wide=_svg("wide", partial(plots.losses, history=history), 8, 3.8),
        losses_narrow=_svg("narrow", partial(plots.losses, history=history, columns=1), 3.8, 4.2),
    )


def _lr_figure(stage: str, evidence: Evidence) -> LrFigure:
    curve = evidence.lr_curves[stage]
    svg = _svg(f"lr-{stage}", partial(plots.lr_panel, stage=stage, curve=curve), 3.8, 2.7)
    return LrFigure(svg, text.lr_sentence(stage, curve))


def _svg(name: str, draw: style.Draw, width: float, height: float) -> Markup:
    return Markup(style.draw_svg(name, draw, width, height))  # noqa: S704  # matplotlib's output, no user's text


def _group_examples(examples: Sequence[Example]) -> dict[str, list[ExampleFigure]]:
    """Group to its examples, in their order."""
    groups: dict[str, list[ExampleFigure]] = {}
    for example in examples:
        heat = None if example.heat is None else _data_uri(heatmap.overlay(example.patch, example.heat))
        figure = ExampleFigure(
            id=example.id,
            patch=_data_uri(example.patch),
            heat=heat,
            predicted=text.CLASS_TITLES[example.predicted],
            caption=text.example_caption(example),
        )
        groups.setdefault(example.group, []).append(figure)
    return groups


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
