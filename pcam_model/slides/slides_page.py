"""`slides.html`: a table of predicted slides, and a viewer of each with its heatmap and outlines; no network."""

import base64
import hashlib
from urllib.parse import quote

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pcam_model.slides.heatmap import colour_map
from pcam_model.slides.records import SlideBatch, SlideResult
from pcam_model.slides.view import DATA_FILE, VIEW_DIR

PAGE_FILE = "slides.html"
LIBRARY, SCRIPT = "openseadragon.min.js", "slides.js"
STOPS = 9


def render_slides_page(batch: SlideBatch) -> bytes:
    """The page as HTML, for the folder in which each slide has its own; the most suspect slide is first.

    OpenSeadragon is inside; tiles are loaded from the slides' folders when they are shown.
    """
    environment = _environment()
    css = "".join(environment.get_template(name).render(colours=_colours()) for name in ("report.css", "slides.css"))
    library, script = _source(environment, LIBRARY), _source(environment, SCRIPT)
    page = environment.get_template("slides.html.j2").render(
        results=batch.ranked,
        failures=batch.failures,
        viewable=any(map(_has_view, batch.results)),
        has_view=_has_view,
        folder=lambda name: f"./{quote(name)}",
        css=Markup(css),  # noqa: S704
        library=Markup(library),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=_policy(library, script),
    )
    return page.encode()


def _environment() -> Environment:
    """Jinja's environment of the page's templates, and of the report's for its style."""
    loader = ChoiceLoader([PackageLoader("pcam_model.slides"), PackageLoader("pcam_model.evaluation")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment


def _source(environment: Environment, name: str) -> str:
    """A script as it stands, without the address of a source map, which a browser would look for."""
    assert environment.loader is not None
    source, *_ = environment.loader.get_source(environment, name)
    return source.partition("//# sourceMappingURL=")[0]


def _policy(*scripts: str) -> str:
    """The content security policy: these scripts, and what lies in the page's folder."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self' file: {hashes}; img-src 'self' file: data: blob:; "
        "style-src 'unsafe-inline'"
    )


def _has_view(result: SlideResult) -> bool:
    return f"{VIEW_DIR}/{DATA_FILE}" in result.files


def _colours() -> str:
    """The heatmap's colours from 0 to 1, as CSS."""
    colours = colour_map(np.linspace(0, 1, STOPS, dtype=np.float32)[None])[0]
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colours.tolist())
