"""The command `pcam drift`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pcam_model.cli.options import JsonOption, StoreOption
from pcam_model.cli.output import print_json
from pcam_model.cli.predict import ModelArgument

EXIT_DRIFT = 3


def drift(
    model: ModelArgument,
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Zips, folders, packs, PCam's HDF5 files or image files.")
    ],
    slides: Annotated[
        str,
        typer.Option(
            metavar="CSV",
            help="A CSV with the columns id,wsi. Whole slides are then compared, not patches.",
            show_default=False,
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An HTML page of the result to write.", show_default=False)
    ] = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Tell whether new patches are of the domain that a model was evaluated on; no labels are needed.

    At most 1,000 of them are compared with the model's reference: by the network's features, by stain and sharpness,
    and by the probabilities. The exit code is 3 where they drifted.
    """
    from pcam_model.core.optional_cache import call_with_cache
    from pcam_model.core.paths import resolve_store_uri
    from pcam_model.core.write_guard import require_writable
    from pcam_model.data.csv_tables import read_slide_map
    from pcam_model.data.image_inputs import Images
    from pcam_model.evaluation.drift_page import write_drift_page
    from pcam_model.inference.drift import measure_drift
    from pcam_model.registry.resolve import find_model

    if out:
        require_writable(out.absolute().parent, "--out")
    images = call_with_cache(lambda cache: Images(inputs, cache / "scratch"))
    known = read_slide_map(Path(slides).expanduser())["slide"] if slides else None
    by_id = {str(each): str(slide) for each, slide in known.items()} if known is not None else None
    folder = call_with_cache(lambda cache: find_model(model, resolve_store_uri(store), cache))
    result = measure_drift(folder, images, by_id)
    if out:
        write_drift_page(out, result, model, ", ".join(map(str, inputs)))
    if as_json:
        print_json({**result.model_dump(mode="json"), "meaning": result.meaning})
    else:
        _print_tests(result)
    sys.exit(EXIT_DRIFT if result.drifted else 0)


def _print_tests(result: Any) -> None:
    """Print a table of the tests, the largest shifts, and the result in a sentence."""
    from rich.console import Console
    from rich.table import Table

    from pcam_model.evaluation.drift import TITLES

    table = Table("test", "statistic", "p", "drift", caption=f"{result.new:,} patches beside {result.reference:,}")
    for name, test in result.tests.items():
        table.add_row(TITLES[name], f"{test.statistic:.3f}", f"{test.p_adjusted:.3f}", "yes" if test.drifted else "no")
    console = Console()
    console.print(table)
    for name, shift in result.largest_shifts():
        print(f"{name}: {shift.new:.3f}, in the reference {shift.reference:.3f} ({shift.deviations:+.2f} deviations)")
    print(result.meaning)
