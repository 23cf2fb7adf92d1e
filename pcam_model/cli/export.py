"""The command `pcam export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pcam_model.cli.options import JsonOption, StoreOption, TtaOption
from pcam_model.cli.output import print_json
from pcam_model.cli.predict import ModelArgument


def export(
    model: ModelArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder; its name is the model's name.")],
    to: Annotated[Literal["wsinfer"], typer.Option("--to", metavar="wsinfer", help="The format.")],  # noqa: ARG001
    store: StoreOption = "",
    tta: TtaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model for another program: wsinfer, the folder that QuPath's WSInfer extension and WSInfer load."""
    from pcam_model.core.optional_cache import call_with_cache
    from pcam_model.core.paths import resolve_store_uri
    from pcam_model.inference.wsinfer_export import export_wsinfer
    from pcam_model.registry.resolve import find_model

    found = call_with_cache(lambda cache: find_model(model, resolve_store_uri(store), cache))
    exported = export_wsinfer(found, folder, tta)
    if as_json:
        return print_json(exported.model_dump(mode="json"))
    views = ", the mean over 8 symmetries" if exported.tta else ""
    print(f"{folder}: run {exported.run}{views}; probabilities within {exported.largest_difference:.0e} of the model's")
    print(f"Viewers call a tile tumour from 0.5; the model's own threshold is {exported.threshold:.3f}.")
