"""The command `pcam predict`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pcam_model.cli.options import StoreOption


class BackendName(StrEnum):
    """What computes."""

    auto = "auto"
    torch = "torch"
    onnx = "onnx"


def predict(
    model: Annotated[str, typer.Argument(help="a channel, a run, a folder, or the address of a run, channel or store")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="zips, folders, packs, PCam's HDF5, images")],
    out: Annotated[Path, typer.Option(help="the CSV to write")] = Path("predictions.csv"),
    store: StoreOption = "",
    runtime: Annotated[BackendName, typer.Option(help="auto: onnx on a processor, torch on a GPU")] = BackendName.auto,
    tta: Annotated[bool | None, typer.Option("--tta/--no-tta", help="the mean over 8 views [the model's own]")] = None,
    batch: Annotated[int, typer.Option(min=0, help="patches at a time [64, on a GPU 256]")] = 0,
) -> None:
    """Probabilities for new patches; images that cannot be read are listed beside them, and the exit code is 1."""
    from pcam_model.core.paths import cache_dir
    from pcam_model.core.predictions_csv import errors_of
    from pcam_model.core.progress import progress
    from pcam_model.data.image_inputs import Images
    from pcam_model.inference.predictor import load
    from pcam_model.inference.streaming import predict_to_csv

    images = Images(inputs, cache_dir() / "scratch")
    predictor = load(model, store=store, runtime=runtime.value, tta=tta)
    about = predictor.model
    if runtime == BackendName.auto:
        _say(f"Computed by {predictor.chosen.name} (--backend): {predictor.chosen.why}")
    if predictor.tta != about.tta:
        _say(
            f"Note: the model was calibrated {'with' if about.tta else 'without'} the 8 views, probabilities may be off"
        )
    if images.others:
        _say(f"Note: {len(images.others):,} files hold no images and were left out, as {images.others[0]}")
    with progress("predicting", say=_say) as tell:
        counts = predict_to_csv(out, predictor, images, batch, tell)
    print(
        f"{out}: {counts.patches:,} patches, {counts.tumour:,} of them tumour (from probability "
        f"{about.threshold:.4g} on), by run {about.run}"
    )
    if counts.unreadable:
        total = counts.patches + counts.unreadable
        _say(f"pcam: {counts.unreadable:,} of {total:,} images could not be read; {errors_of(out)} says which and why")
        sys.exit(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
