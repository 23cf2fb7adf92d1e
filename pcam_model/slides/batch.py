"""Many slides: each into a folder of its own, once; a slide that cannot be read does not stop the others."""

import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pcam_model.core.atomic_dir import build_dir
from pcam_model.core.errors import ConfigError, PcamError, SourceError
from pcam_model.core.files import write_atomic
from pcam_model.core.log import log
from pcam_model.core.write_guard import write_guard
from pcam_model.slides.listing import SlideFile
from pcam_model.slides.prediction import OnProgress, SlideModel, predict_slide
from pcam_model.slides.records import RECORD_FILE, SlideBatch, SlideFailure, SlideResult, read_result, result_key
from pcam_model.slides.slides_page import PAGE_FILE, render_slides_page

SUMMARY_FILE = "slides.csv"
COLUMNS = (
    "name", "maximum", "top_mean", "tumour_mm2", "tumour_fraction", "tissue_mm2", "patches", "mpp", "seconds",
    "path", "reason",
)  # fmt: skip


def predict_slides(
    files: Sequence[SlideFile],
    model: SlideModel,
    out: Path,
    on_progress: Callable[[SlideFile], OnProgress | None] = lambda _: None,
) -> SlideBatch:
    """Predict each slide into `out/<name>/`, unless its result is there; all are listed in slides.csv and slides.html.

    Args:
        files: the slides.
        model: the model, and how.
        out: the folder of the results.
        on_progress: gives a slide's callback of progress.

    Raises:
        DiskFullError: the disk is full.
        ModelError: the model's output is not finite.
    """
    results: list[SlideResult] = []
    failures: list[SlideFailure] = []
    cached = 0
    with write_guard(out, "--out"):
        for file in files:
            outcome = try_slide(file, model, out / file.name, on_progress(file))
            if isinstance(outcome, SlideFailure):
                log.warning("%s", outcome.reason)
                failures.append(outcome)
            else:
                result, was_there = outcome
                cached += was_there
                results.append(result)
            batch = SlideBatch(results=tuple(results), failures=tuple(failures), cached=cached)
            write_atomic(out / SUMMARY_FILE, summary_csv(batch))
            write_atomic(out / PAGE_FILE, render_slides_page(batch))
    return batch


def try_slide(
    file: SlideFile, model: SlideModel, target: Path, on_progress: OnProgress | None = None
) -> tuple[SlideResult, bool] | SlideFailure:
    """The result of a slide in its folder `target`, and whether it was there before; or why there is none."""
    try:
        key = slide_key(file, model)
        return predict_unless_done(file, model, target, key, on_progress)
    except SourceError as error:
        return SlideFailure(name=file.name, path=file.path, reason=str(error))
    except (PcamError, OSError):
        raise
    except Exception as error:  # a fault that one slide brings out must not cost the others their results
        log.exception("%s", file.path)
        return SlideFailure(name=file.name, path=file.path, reason=f"{type(error).__name__}: {error}")


def slide_key(file: SlideFile, model: SlideModel) -> str:
    """The key of a slide's result; see `records.result_key`."""
    predictor = model.predictor
    return result_key(file, predictor.model, predictor.tta, predictor.precision, model.options)


def predict_unless_done(
    file: SlideFile, model: SlideModel, target: Path, key: str, on_progress: OnProgress | None = None
) -> tuple[SlideResult, bool]:
    """The result of this key in a folder, predicted where it is not there; and whether it was.

    Raises:
        SourceError: the slide cannot be predicted.
        ConfigError: the folder holds something else than a slide's result.
    """
    if target.exists() and not (target / RECORD_FILE).is_file() and any(target.iterdir()):
        raise ConfigError(f"{target} holds no result of a slide; name another folder with --out, or remove it")
    with build_dir(target, partial(_has_key, key)) as folder:
        if folder:
            predict_slide(file, model, folder, key, on_progress)
    result = read_result(target)
    assert result is not None
    return result, folder is None


def summary_csv(batch: SlideBatch) -> bytes:
    """A CSV with a row a slide: scores, largest first, then the slides that failed with their reasons."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for result in batch.ranked:
        values = result.model_dump() | result.scores.model_dump()
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in values.items()})
    writer.writerows(failure.model_dump() for failure in batch.failures)
    return text.getvalue().encode()


def _has_key(key: str, folder: Path) -> bool:
    result = read_result(folder)
    return result is not None and result.key == key
