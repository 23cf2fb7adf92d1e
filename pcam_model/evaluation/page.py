"""The report as one page that needs nothing else, and as a model card."""

import base64
import json
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pcam_model.evaluation import curves, heatmap, metrics, plots, style
from pcam_model.evaluation import text as words
from pcam_model.evaluation.evidence import Evidence, Example, LrCurve


def report_page(content: dict[str, Any], evidence: Evidence) -> bytes:
    """The whole report as HTML: no script, no address, every picture inside."""
    room = _room(autoescape=True)
    css = room.get_template("report.css").render()
    page = room.get_template("report.html.j2").render(
        **content, **words.sentences(content), css=Markup(css), pictures=_pictures(content, evidence),  # noqa: S704
        examples=_groups(evidence.examples),
    )  # fmt: skip
    return page.encode()


def model_card(content: dict[str, Any]) -> bytes:
    """The model card, in Markdown."""
    return _room(autoescape=False).get_template("MODEL_CARD.md.j2").render(
        **content, **words.sentences(content)).encode()  # fmt: skip


def _room(*, autoescape: bool) -> Environment:
    room = Environment(loader=PackageLoader("pcam_model.evaluation"), autoescape=autoescape, undefined=StrictUndefined,
                       keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    room.filters |= {
        "figure": words.figure, "percent": lambda value: f"{value:.1%}", "count": lambda value: f"{value:,}",
        "point": words.point, "range": words.interval, "sentence": words.sentence, "plain": words.plain,
        "gain": words.gain, "words": lambda name: str(name).replace("_", " "),
        "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }  # fmt: skip
    room.globals |= {"names": metrics.NAMES, "low_names": metrics.BETTER_WHEN_LOW, "side_names": words.SIDE,
                     "stage_names": style.STAGE_NAME}  # fmt: skip
    return room


def _pictures(content: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    sides, history = content["sides"], evidence.history
    searched = [stage for stage in plots.STAGES if stage in evidence.lr_curves]
    return {
        "roc": _svg("roc", partial(curves.roc, sides=sides), 3.5, 3.3),
        "pr": _svg("pr", partial(curves.precision_recall, sides=sides), 3.5, 3.3),
        "reliability": _svg("rel", partial(curves.reliability, sides=sides), 3.5, 3.3),
        "lr": [_search(stage, evidence.lr_curves[stage]) for stage in searched],
        "losses_wide": _svg("wide", partial(plots.losses, history=history), 8, 3.8),
        "losses_narrow": _svg("narrow", partial(plots.losses, history=history, columns=1), 3.8, 4.2),
    }  # fmt: skip


def _search(stage: str, curve: LrCurve) -> dict[str, Any]:
    picture = _svg(f"lr-{stage}", partial(plots.lr_panel, stage=stage, curve=curve), 3.8, 2.7)
    return {"svg": picture, "words": words.search(stage, curve)}


def _svg(name: str, draw: style.Draw, width: float, height: float) -> Markup:
    return Markup(style.svg(name, draw, width, height))  # noqa: S704  # ours, not a user's


def _groups(examples: Sequence[Example]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for example in examples:
        heat = None if example.heat is None else _picture(heatmap.overlay(example.patch, example.heat))
        groups.setdefault(example.group, []).append({
            "id": example.id, "patch": _picture(example.patch), "heat": heat, "caption": words.caption(example),
            "predicted": words.CLASS[example.predict_rows],
        })  # fmt: skip
    return groups


def _picture(pixels: NDArray[np.uint8]) -> str:
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
