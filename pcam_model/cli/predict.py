"""The command `pcam predict`."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from pcam_model.cli.options import BackendOption, JsonOption, PrecisionOption, StoreOption, TtaOption
from pcam_model.cli.output import print_json
from pcam_model.core.errors import ConfigError
from pcam_model.core.log import log

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A run, a channel, a folder, or the address of a run, a channel or a store."),
]


def predict(
    model: ModelArgument,
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Zips, folders, packs, PCam's HDF5 files or image files.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The CSV to write.")] = Path("predictions.csv"),
    store: StoreOption = "",
    backend: BackendOption = "auto",
    precision: PrecisionOption = "float32",
    tta: TtaOption = None,
    batch_size: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Patches at a time. By default 64, on a GPU 256.", show_default=False),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write the probabilities of new patches to a CSV with the columns id, probability, label and file.

    A model with conformal quantiles adds the column decision: tumour, no tumour or unsure.

    Images that cannot be read are listed in a second CSV beside it, and the exit code is 1.
    """
    from pcam_model.core.optional_cache import call_with_cache
    from pcam_model.core.predictions_csv import errors_path
    from pcam_model.core.progress import progress
    from pcam_model.data.image_inputs import Images
    from pcam_model.inference.predictor import load
    from pcam_model.inference.streaming import predict_to_csv

    _refuse_input_as_output(inputs, out)
    images = call_with_cache(lambda cache: Images(inputs, cache / "scratch"))
    predictor = load(model, store=store, backend=backend, tta=tta, precision=precision)
    for note in _notes(predictor, images, backend):
        log.info(note)
    with progress("predicting") as on_progress:
        counts = predict_to_csv(out, predictor, images, batch_size, on_progress)
    metadata = predictor.model
    if as_json:
        print_json({"predictions": str(out), **counts.model_dump(), "run": metadata.run,
                    "threshold": metadata.threshold, "tta": predictor.tta,
                    "backend": predictor.backend_choice.name, "precision": predictor.precision})  # fmt: skip
    else:
        unsure = "" if counts.unsure is None else f", {counts.unsure:,} unsure"
        print(
            f"{out}: {counts.patches:,} patches, {counts.tumour:,} of them tumour (from probability "
            f"{metadata.threshold:.4g} on){unsure}, by run {metadata.run}"
        )
    if counts.unreadable:
        total = counts.patches + counts.unreadable
        log.error(
            f"pcam: {counts.unreadable:,} of {total:,} images could not be read; {errors_path(out)} lists them with "
            "the reasons"
        )
        sys.exit(1)


def _refuse_input_as_output(inputs: list[Path], out: Path) -> None:
    """Raise ConfigError where the table would replace an input."""
    with suppress(OSError):  # of paths that are not there, which others name
        if any(path.samefile(out) for path in inputs):
            raise ConfigError(f"--out is {out}, which is an input; name another file, as in predictions.csv")


def _notes(predictor: Any, images: Any, backend: str) -> list[str]:
    """What a user should know of the choices that were made."""
    notes = []
    if backend == "auto":
        precision = "" if predictor.precision == "float32" else f" in {predictor.precision}"
        choice = predictor.backend_choice
        notes.append(f"Computed by {choice.name}{precision} (--backend): {choice.reason}")
    if predictor.tta != predictor.model.tta:
        calibrated = "with" if predictor.model.tta else "without"
        notes.append(f"Note: the model was calibrated {calibrated} --tta, so probabilities may be off")
    if predictor.model.conformal is None:
        notes.append("Note: the model has no conformal quantiles, so the CSV has no column decision")
    if images.ignored_files:
        count, first = len(images.ignored_files), images.ignored_files[0]
        notes.append(f"Note: {count:,} files that are no images are left out, as {first}")
    return notes
