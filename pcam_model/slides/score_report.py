"""How well the scores of slides tell those with tumour from those without, and how well lesions are detected."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import SourceError, SplitError
from pcam_model.core.estimate import Estimate
from pcam_model.core.log import log
from pcam_model.core.schema import Record
from pcam_model.evaluation.bootstrap import ResamplingUnits, ScoredPatches
from pcam_model.evaluation.intervals import estimate_intervals
from pcam_model.evaluation.metrics import sigmoid
from pcam_model.slides.froc import LesionMetrics, SlideHits, estimate_froc
from pcam_model.slides.geometry import Grid, Size
from pcam_model.slides.heatmap_features import FEATURES, heatmap_features
from pcam_model.slides.lesions import LESION_MPP, find_detections, find_lesions, match_detections
from pcam_model.slides.listing import SlideFile
from pcam_model.slides.records import RECORD_FILE, SlideResult, read_result
from pcam_model.slides.result_map import read_map
from pcam_model.slides.slide_labels import SlideLabel
from pcam_model.slides.slide_regression import MIN_PER_CLASS, SlideRegression, cross_fit, fit_regression
from pcam_model.slides.tumour_regions import AnnotationClasses, find_annotation_file, read_regions

Array = NDArray[Any]
RANKING = ("maximum", "top_mean", "tumour_mm2")
REGRESSION = "logistic_regression"
DEFAULT_CLASSES = AnnotationClasses()


class SlideScoreReport(Record):
    """Figures of slide scores, each over slides."""

    model: str
    slides: int
    """How many the figures are of."""
    tumour_slides: int
    scores: dict[str, dict[str, Estimate]]
    """By score: AUC and average precision; of the regression NLL, Brier score and ECE too."""
    regression: SlideRegression | None
    """Fitted on the training slides, or on all where none is named; null where there are too few."""
    method: str
    """Where the regression's figures come from."""
    lesions: LesionMetrics | None
    """Null without annotations."""
    values: dict[str, dict[str, float | None]]
    """By slide: its label, and each score that the figures are of."""
    left_out: tuple[str, ...]
    """Labelled slides without a result."""


class LabelledResult(NamedTuple):
    """The result of a labelled slide."""

    folder: Path
    result: SlideResult
    label: SlideLabel


def score_slides(
    results: Path,
    labels: Sequence[SlideLabel],
    annotations: Path | None = None,
    classes: AnnotationClasses = DEFAULT_CLASSES,
    seed: int = 0,
) -> SlideScoreReport:
    """Figures of the slides' scores with 95 % intervals by bootstrap over slides.

    Args:
        results: a folder that `pcam slides` wrote.
        labels: of the slides; with splits, the figures are of those that are not for training.
        annotations: a folder with the annotations of each slide with tumour, for the detection of lesions.
        classes: what the annotations' classes mean.
        seed: of folds and resamples.

    Raises:
        SourceError: there are no such results, they are of several models, or a slide has no annotations.
        SplitError: one class only.
    """
    labelled, left_out = find_labelled(results, labels)
    features = np.array([_features(each) for each in labelled])
    judged = [number for number, each in enumerate(labelled) if each.label.split != "train"]
    truth = np.array([each.label.label for each in labelled])
    _require_both_classes(truth[judged])
    log_odds, regression, method = _regress(features, truth, np.array(judged, np.int64), seed)
    values = {name: np.array([getattr(labelled[i].result.scores, name) for i in judged]) for name in RANKING}
    figures = {name: _figures(truth[judged], value, seed) for name, value in values.items()}
    if log_odds is not None:
        figures[REGRESSION] = _figures(truth[judged], log_odds, seed, calibrated=True)
        values[REGRESSION] = sigmoid(log_odds)
    reported = [labelled[number] for number in judged]
    return SlideScoreReport(
        model=labelled[0].result.model,
        slides=len(judged),
        tumour_slides=int(truth[judged].sum()),
        scores=figures,
        regression=regression,
        method=method,
        lesions=estimate_froc(_all_hits(reported, annotations, classes), seed) if annotations else None,
        values=_by_slide(reported, values),
        left_out=left_out,
    )


def find_labelled(results: Path, labels: Sequence[SlideLabel]) -> tuple[list[LabelledResult], tuple[str, ...]]:
    """The results of the labelled slides, and the names of those that have none.

    Raises:
        SourceError: there is no result, none is labelled, or they are of several models or strides.
    """
    folders = sorted(path.parent for path in results.glob(f"*/{RECORD_FILE}"))
    found = [(folder, result) for folder in folders if (result := read_result(folder))]
    if not found:
        raise SourceError(f"{results}: it holds no slide's result; name a folder that `pcam slides` wrote with --out")
    by_name = {Path(result.path).name: (folder, result) for folder, result in found}
    by_name |= {result.name: (folder, result) for folder, result in found}
    labelled = [LabelledResult(*by_name[label.slide], label) for label in labels if label.slide in by_name]
    if not labelled:
        raise SourceError(
            f"{results}: no slide of the labels has a result here; the results are of {found[0][1].name} and "
            f"{len(found) - 1:,} others, the first label is of {labels[0].slide if labels else 'none'}"
        )
    kinds = sorted({(each.result.model, each.result.stride, each.result.tta) for each in labelled})
    if len(kinds) > 1:
        raise SourceError(
            f"{results}: the results are of {' and '.join(f'{run} at stride {stride}' for run, stride, _ in kinds)}; "
            "one set of figures is of one model and one way; predict all slides alike into another folder"
        )
    left_out = tuple(label.slide for label in labels if label.slide not in by_name)
    if left_out:
        log.warning("%s labelled slides have no result and are left out (first: %s)", f"{len(left_out):,}", left_out[0])
    return labelled, left_out


def _features(labelled: LabelledResult) -> Array:
    result = labelled.result
    probabilities = read_map(labelled.folder, result)
    return heatmap_features(probabilities, result.scores, result.threshold, result.mpp)


def _require_both_classes(truth: Array) -> None:
    counts = np.bincount(truth, minlength=2)
    if not counts.all():
        raise SplitError(
            f"the slides to report on are {counts[0]:,} of class 0 and {counts[1]:,} of class 1, and both are needed; "
            "label more slides, or name fewer as split train"
        )


def _regress(
    features: Array, truth: Array, judged: Array, seed: int
) -> tuple[Array | None, SlideRegression | None, str]:
    """Log odds of the judged slides, the regression, and how that came about."""
    training = np.setdiff1d(np.arange(len(truth)), judged)
    named = len(training) > 0
    fitted = training if named else judged
    least = int(np.bincount(truth[fitted], minlength=2).min())
    if least < MIN_PER_CLASS:
        kind = "training" if named else "labelled"
        return None, None, f"no regression: of one class there are {least} {kind} slides, {MIN_PER_CLASS} are needed"
    regression = fit_regression(FEATURES, features[fitted], truth[fitted], seed)
    if named:
        return regression.log_odds(features[judged]), regression, f"fitted on {len(fitted):,} training slides"
    log_odds = cross_fit(FEATURES, features, truth, seed)
    return (
        log_odds,
        regression,
        "cross-fitted: each slide is scored by a regression fitted on the slides of other folds",
    )


def _figures(truth: Array, scores: Array, seed: int, *, calibrated: bool = False) -> dict[str, Estimate]:
    """AUC and average precision of a score; of calibrated log odds the losses of their probabilities too."""
    probability = sigmoid(scores) if calibrated else np.full(len(scores), 0.5)
    units = ResamplingUnits(np.arange(len(truth)), len(truth), "slides")
    scored = ScoredPatches(truth, scores, probability, probability, {}, units)
    names = ("auc", "average_precision", *(("nll", "brier", "ece") if calibrated else ()))
    figures = estimate_intervals(scored, seed, bands=False).threshold_free
    return {name: figures[name] for name in names}


def _all_hits(reported: Sequence[LabelledResult], folder: Path, classes: AnnotationClasses) -> list[SlideHits]:
    return [_hits(each, folder, classes) for each in reported]


def _hits(labelled: LabelledResult, folder: Path, classes: AnnotationClasses) -> SlideHits:
    """The detections of a slide; one without tumour needs no annotations."""
    result = labelled.result
    size, grid = Size(result.width, result.height), Grid(max(LESION_MPP / result.mpp, 1))
    rounded = size.on(grid).rounded()
    mask = np.zeros((int(rounded.height), int(rounded.width)), bool)
    path = find_annotation_file(SlideFile(name=result.name, path=result.path), folder)
    if path:
        mask = read_regions(path, size, classes).mask(mask.shape, grid)
    if bool(mask.any()) != bool(labelled.label.label):
        said, shown = ("tumour", "none") if labelled.label.label else ("no tumour", "tumour")
        where = path or f"no file of {result.name} in {folder}"
        raise SourceError(f"{result.name}: its label is {said}, but its annotations show {shown} ({where}); mend one")
    probabilities = read_map(labelled.folder, result)
    lesions = find_lesions(mask, grid, result.mpp)
    return match_detections(find_detections(probabilities, result.mpp), probabilities, lesions)


def _by_slide(reported: Sequence[LabelledResult], values: Mapping[str, Array]) -> dict[str, dict[str, float | None]]:
    return {
        each.result.name: {"label": each.label.label, **{name: float(value[row]) for name, value in values.items()}}
        for row, each in enumerate(reported)
    }
