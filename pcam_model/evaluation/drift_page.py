"""The page of a comparison of new patches with a model's reference."""

from pathlib import Path

from markupsafe import Markup

from pcam_model.core.files import write_atomic
from pcam_model.evaluation.drift import ALPHA, TITLES, DriftResult
from pcam_model.evaluation.page import template_environment


def write_drift_page(path: Path, result: DriftResult, model: str, source: str) -> None:
    """Write the page of a result as HTML: no script, no address.

    Args:
        path: the file to write.
        result: the comparison.
        model: its model in a person's words.
        source: the new patches in a person's words.
    """
    environment = template_environment(autoescape=True)
    css = Markup(environment.get_template("report.css").render())  # noqa: S704
    page = environment.get_template("drift.html.j2").render(
        result=result, titles=TITLES, alpha=ALPHA, model=model, source=source, css=css
    )
    write_atomic(path, page.encode())
