"""The command `pcam slides`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pcam_model.cli.options import BackendOption, JsonOption, PrecisionOption, StoreOption, TtaOption
from pcam_model.cli.output import print_json
from pcam_model.cli.predict import ModelArgument
from pcam_model.core.log import log


def slides(
    model: ModelArgument,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="SLIDE", help="Slides (SVS, NDPI, MRXS, SCN, BIF, TIFF, DICOM), or folders with them."),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="A folder for the results: a folder per slide, slides.csv and slides.html."),
    ],
    store: StoreOption = "",
    stride: Annotated[
        int, typer.Option(min=1, max=96, metavar="N", help="Pixels between neighbouring patches, at the model's scale.")
    ] = 32,
    mpp: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=20,
            metavar="X",
            help="Microns per pixel of the slides' finest level. By default as each slide tells.",
            show_default=False,
        ),
    ] = None,
    no_tissue_mask: Annotated[
        bool, typer.Option("--no-tissue-mask", help="Predict all of the slide, glass too.")
    ] = False,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A mask in place of the tissue's: a QuPath GeoJSON or a picture, or a folder with one per slide.",
            show_default=False,
        ),
    ] = None,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="Write the probability of each cell into the GeoJSON too.")
    ] = False,
    view_mpp: Annotated[
        float,
        typer.Option(
            min=0,
            max=100,
            metavar="X",
            help="Microns per pixel of the slides in slides.html: 1 shows cells, 0 leaves them out.",
        ),
    ] = 4,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "float32",
    tta: TtaOption = None,
    batch_size: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Patches at a time. By default 64, on a GPU 256.", show_default=False),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Predict whole slides: a heatmap, tumour outlines for QuPath, a table of probabilities and scores for each.

    A slide whose result is in DIR is not predicted again. Slides that cannot be read are listed in slides.csv with the
    reason, and the exit code is 1.
    """
    from pcam_model.core.progress import progress
    from pcam_model.inference.predictor import load
    from pcam_model.slides.batch import SUMMARY_FILE, predict_slides
    from pcam_model.slides.listing import find_slides
    from pcam_model.slides.prediction import SlideModel
    from pcam_model.slides.records import SlideOptions
    from pcam_model.slides.slides_page import PAGE_FILE

    files = find_slides(inputs)
    options = SlideOptions(
        stride=stride, mpp=mpp, tissue_mask=not no_tissue_mask, mask=str(mask or ""), tiles=tiles, view_mpp=view_mpp
    )
    predictor = load(model, store=store, backend=backend, tta=tta, precision=precision)
    with progress("predicting") as on_progress:
        batch = predict_slides(files, SlideModel(predictor, options, batch_size), out, lambda _: on_progress)
    if as_json:
        print_json(batch.model_dump(mode="json"))
    else:
        _print_table(batch)
        print(f"{out / SUMMARY_FILE}: {len(batch.results):,} slides, {batch.cached:,} of them predicted before")
        print(f"{out / PAGE_FILE}: a page with all slides and their heatmaps")
    if batch.failures:
        log.error("pcam: %s of %s slides could not be predicted; %s lists them with the reasons",
                  f"{len(batch.failures):,}", f"{len(files):,}", out / SUMMARY_FILE)  # fmt: skip
        sys.exit(1)


def _print_table(batch: Any) -> None:
    """Print the scores of each slide, the largest first."""
    from rich.console import Console
    from rich.table import Table

    if not batch.results:
        return
    table = Table("slide", "maximum", "top 10", "tumour mm²", "tissue mm²", "patches", "s")
    for result in sorted(batch.results, key=lambda result: -result.scores.maximum):
        scores = result.scores
        tissue = "-" if result.tissue_mm2 is None else f"{result.tissue_mm2:.2f}"
        table.add_row(result.name, f"{scores.maximum:.4f}", f"{scores.top_mean:.4f}", f"{scores.tumour_mm2:.3f}",
                      tissue, f"{result.patches:,}", f"{result.seconds:,.1f}")  # fmt: skip
    Console().print(table)
