"""The command `pcam slides score`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcam_model.cli.options import JsonOption
from pcam_model.cli.output import print_json, print_metrics
from pcam_model.core.log import log

if TYPE_CHECKING:
    from pcam_model.slides.score_report import SlideScoreReport


def slide_score(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A folder that `pcam slides` wrote with --out.")],
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="A CSV with the columns slide,label and perhaps split (train, valid, test), which names the slides "
            "that the regression is fitted on.",
        ),
    ],
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Annotations of each slide with tumour, by its name: QuPath's GeoJSON, ASAP's XML or a mask TIFF. "
            "Lesions are then counted too.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JSON file for the figures and each slide's scores.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate slide scores: AUC of each and a regression on heatmaps, and FROC of lesions, with 95 % intervals."""
    from pcam_model.core.files import write_atomic
    from pcam_model.core.write_guard import require_writable
    from pcam_model.slides.score_report import score_slides
    from pcam_model.slides.slide_labels import read_slide_labels

    if out:
        require_writable(out.absolute().parent, "--out")
    report = score_slides(results, read_slide_labels(labels), annotations)
    if out:
        write_atomic(out, report.model_dump_json(indent=1).encode())
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _print_report(report)


def _print_report(report: "SlideScoreReport") -> None:
    content = report.model_dump(mode="json")
    print(f"{report.model}: {report.slides:,} slides, {report.tumour_slides:,} of them with tumour")
    print_metrics(content["scores"])
    if report.lesions:
        figures = {"average": content["lesions"]["score"]}
        figures |= {f"at {rate} a slide": figure for rate, figure in content["lesions"]["sensitivity"].items()}
        print_metrics({f"sensitivity for {report.lesions.lesions:,} lesions by false positives": figures})
    log.info("Logistic regression: %s", report.method)
