"""The FROC curve of a set of slides: sensitivity for lesions by the number of false positives per slide."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import SplitError
from pcam_model.core.estimate import Estimate
from pcam_model.core.schema import Record
from pcam_model.evaluation.bootstrap import RESAMPLES, ResamplingUnits, bootstrap_weights, jackknife_weights
from pcam_model.evaluation.intervals import bca_interval

FP_RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per slide at which Camelyon16 takes the sensitivity."""
Array = NDArray[Any]


class SlideHits(NamedTuple):
    """Lesions of a slide that were detected, and detections outside of lesions."""

    false_positives: NDArray[np.float32]
    """The probability of each detection outside of lesions."""
    true_positives: NDArray[np.float32]
    """The largest probability of a detection in each lesion; 0 where it is missed, or not counted."""
    lesions: int
    """How many lesions are counted."""


class LesionMetrics(Record):
    """Detection of lesions on a set of slides."""

    score: Estimate
    """Mean of the sensitivities at 1/4, 1/2, 1, 2, 4 and 8 false positives per slide."""
    sensitivity: dict[str, Estimate]
    """By false positives per slide."""
    slides: int
    lesions: int
    isolated: int
    """Isolated tumour cells, which are not counted."""
    false_positives: int


class FrocCurve:
    """The FROC of slides as a function of weights on them; with weights of 1 it is the FROC itself.

    It is that of Camelyon16: as in its program, the lowest of all probabilities is no point of the curve.
    """

    def __init__(self, slides: Sequence[SlideHits]) -> None:
        sizes = [(len(slide.false_positives), len(slide.true_positives)) for slide in slides]
        values = [np.concatenate([slide.false_positives, slide.true_positives]) for slide in slides]
        probability = np.concatenate([*values, np.empty(0, np.float32)])
        order = np.argsort(-probability, kind="stable")
        self._lesions = np.array([slide.lesions for slide in slides], np.int64)
        self._slide = np.repeat(np.arange(len(slides)), [fp + tp for fp, tp in sizes])[order]
        self._is_hit = np.concatenate([np.repeat([0, 1], size) for size in sizes] or [np.empty(0, np.int64)])[order]
        self._ends = np.flatnonzero(np.append(np.diff(probability[order]) != 0, True))[: len(order)]
        self._threshold = np.repeat(np.arange(len(self._ends)), np.diff(self._ends, prepend=-1))
        # Of each detection and lesion, so that resamples are drawn in chunks that fit the memory.
        self.units = ResamplingUnits(np.append(self._slide, 0), len(slides), "slides")

    def __call__(self, weights: Array) -> Array:
        """Their mean (the score), then the sensitivities at `FP_RATES`: (R, 7), NaN without lesions; weights (R, S)."""
        drawn = weights[:, self._slide]
        slides, lesions = weights.sum(axis=1), weights @ self._lesions
        hits = np.cumsum(drawn * self._is_hit, axis=1)[:, self._ends]
        false = np.cumsum(drawn * (1 - self._is_hit), axis=1)[:, self._ends]
        present = np.where(drawn > 0, self._threshold + 1, 0)  # the last threshold of a slide that is drawn
        counts = np.maximum(present.max(axis=1, initial=0) - 1, 0)
        rows = [
            _sensitivities(false[row, :count] / max(slides[row], 1), hits[row, :count] / lesions[row])
            if lesions[row] else np.full(len(FP_RATES), np.nan)
            for row, count in enumerate(counts)
        ]  # fmt: skip
        values = np.array(rows)
        return np.column_stack([values.mean(axis=1), values])


def _sensitivities(fp_per_slide: Array, sensitivity: Array) -> Array:
    """The sensitivity (6,) at each of `FP_RATES`, of a curve with ascending false positives per slide."""
    start = np.zeros(1)
    return np.asarray(np.interp(FP_RATES, np.append(start, fp_per_slide), np.append(start, sensitivity)))


def froc(slides: Sequence[SlideHits]) -> Array:
    """The FROC score and the sensitivities at `FP_RATES`, (7,).

    Raises:
        SplitError: there is no lesion.
    """
    if not sum(slide.lesions for slide in slides):
        raise SplitError(
            f"the {len(slides):,} slides hold no lesion; annotate the tumour of at least one that is not tiny"
        )
    values: Array = FrocCurve(slides)(np.ones((1, len(slides)), np.int64))[0]
    return values


def estimate_froc(slides: Sequence[SlideHits], seed: int, resamples: int = RESAMPLES) -> LesionMetrics:
    """The FROC with 95 % intervals by bootstrap over slides. Raises SplitError where there is no lesion."""
    values, curve = froc(slides), FrocCurve(slides)
    units = curve.units
    resampled = np.concatenate([curve(weights) for weights in bootstrap_weights(units, resamples, seed)])
    jackknifed = np.concatenate([curve(weights) for weights in jackknife_weights(units, seed)])
    interval = partial(_estimate, values, resampled, jackknifed, len(slides))
    return LesionMetrics(
        score=interval(0),
        sensitivity={f"{rate:g}": interval(number) for number, rate in enumerate(FP_RATES, 1)},
        slides=len(slides),
        lesions=sum(slide.lesions for slide in slides),
        isolated=sum(len(slide.true_positives) - slide.lesions for slide in slides),
        false_positives=sum(len(slide.false_positives) for slide in slides),
    )


def _estimate(values: Array, resampled: Array, jackknifed: Array, slides: int, column: int) -> Estimate:
    low, high = bca_interval(float(values[column]), resampled[:, column], jackknifed[:, column], slides)
    return Estimate(value=float(values[column]), low=low, high=high)
