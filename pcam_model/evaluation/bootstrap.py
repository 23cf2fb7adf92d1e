"""Bootstrap: resampling weights, and every metric of a split for many resamples at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.rng import derived_seed
from pcam_model.evaluation import metrics
from pcam_model.evaluation.calibration import BINS, bin_index

Array = NDArray[Any]
RESAMPLES = 2000
FEW_SLIDES = 20  # fewer give rough intervals
MAX_WEIGHTS = 300_000  # in memory at a time
CURVE_GRID = np.linspace(0, 1, 101)
MAX_JACKKNIFE_GROUPS = 200
# The first number of an RNG key: what the random numbers are for.
BOOTSTRAP_KEY, JACKKNIFE_KEY = 40, 43


@dataclass(frozen=True)
class ResamplingUnits:
    """The units that are resampled: slides where all are known, else patches.

    Attributes:
        index: int64 (N,), the unit of each patch.
        count: number of units.
        kind: "slides" or "patches".
    """

    index: Array
    count: int
    kind: Literal["slides", "patches"]


def resampling_units(slide: pd.Series) -> ResamplingUnits:
    """Slides where every patch has one and there are at least two; else patches, as if they were independent."""
    known = slide.notna() & (slide.astype("string").fillna("") != "")
    if known.all() and slide.nunique() > 1:
        index, names = pd.factorize(slide)
        return ResamplingUnits(index.astype(np.int64), len(names), "slides")
    return ResamplingUnits(np.arange(len(slide)), len(slide), "patches")


def bootstrap_weights(units: ResamplingUnits, resamples: int, seed: int) -> Iterator[Array]:
    """How often each unit is drawn, int64 (R, units), in chunks that add up to `resamples` rows."""
    rng = np.random.default_rng(derived_seed(seed, BOOTSTRAP_KEY))
    for rows in _row_chunks(resamples, len(units.index)):
        drawn = rng.integers(0, units.count, (len(rows), units.count)) + units.count * np.arange(len(rows))[:, None]
        counts = np.bincount(drawn.ravel(), minlength=len(rows) * units.count)
        yield counts.reshape(len(rows), units.count)


def jackknife_weights(units: ResamplingUnits, seed: int) -> Iterator[Array]:
    """0/1 weights int64 (R, units) in chunks; each row leaves out one of at most 200 equal groups of units."""
    groups = min(units.count, MAX_JACKKNIFE_GROUPS)
    rng = np.random.default_rng(derived_seed(seed, JACKKNIFE_KEY))
    group = rng.permutation(np.arange(units.count) % groups)
    for rows in _row_chunks(groups, len(units.index)):
        yield (group != rows[:, None]).astype(np.int64)


def _row_chunks(rows: int, patches: int) -> Iterator[Array]:
    """Row numbers in chunks that keep the weights of all patches in the CPU's caches."""
    chunk = max(1, MAX_WEIGHTS // patches)
    return (np.arange(start, min(start + chunk, rows)) for start in range(0, rows, chunk))


@dataclass(frozen=True)
class ScoredPatches:
    """Labels and predictions of the patches of a split.

    Attributes:
        labels: (N,) of 0 and 1.
        log_odds: (N,) of tumour, uncalibrated; for ranking.
        probability: (N,) calibrated; for NLL, Brier score and ECE.
        uncalibrated: (N,) probability before calibration.
        predicted: operating point to the predicted classes, bool (N,).
        units: what is resampled.
        sets: bool (N, 2), whether the conformal set holds class 0 and class 1; None where there are no sets.
        weights: (N,) of the patches in NLL, Brier score and ECE; None: all the same.
    """

    labels: Array
    log_odds: Array
    probability: Array
    uncalibrated: Array
    predicted: dict[str, Array]
    units: ResamplingUnits
    sets: Array | None = None
    weights: Array | None = None


@dataclass(frozen=True)
class ResampledMetrics:
    """Metrics of R resamples.

    Attributes:
        by_point: operating point to the metrics of its threshold, each (R,).
        threshold_free: the metrics that no threshold decides, each (R,).
        curves: "roc" and "pr" to (R, 101) along `CURVE_GRID`; empty where they were not asked for.
    """

    by_point: dict[str, dict[str, Array]]
    threshold_free: dict[str, Array]
    curves: dict[str, Array]


def concat_resamples(chunks: Iterable[ResampledMetrics]) -> ResampledMetrics:
    """The resamples of all chunks as one."""
    every = list(chunks)
    return ResampledMetrics(
        by_point={point: concat_arrays(chunk.by_point[point] for chunk in every) for point in every[0].by_point},
        threshold_free=concat_arrays(chunk.threshold_free for chunk in every),
        curves=concat_arrays(chunk.curves for chunk in every),
    )


def concat_arrays(chunks: Iterable[dict[str, Array]]) -> dict[str, Array]:
    """Arrays of the same name, joined along their first axis."""
    every = list(chunks)
    return {name: np.concatenate([chunk[name] for chunk in every]) for name in every[0]}


class WeightedMetrics:
    """Every metric of scored patches as a function of weights on the units; with weights of 1 it is the metric itself.

    What does not depend on the weights is computed once.
    """

    def __init__(self, scored: ScoredPatches):
        self.scored = scored
        columns = [metrics.confusion_one_hot(scored.labels, predicted) for predicted in scored.predicted.values()]
        for values in (scored.probability, scored.uncalibrated):
            terms = _loss_terms(scored.labels, values)
            columns.append(terms if scored.weights is None else terms * scored.weights[:, None])
        self._sums = _sum_by_unit(scored.units, np.hstack(columns))
        order = np.argsort(-scored.log_odds, kind="stable")
        self._unit, self._tumour = scored.units.index[order], scored.labels[order].astype(np.int32)
        self._thresholds = np.flatnonzero(np.append(np.diff(scored.log_odds[order]) != 0, True))

    def __call__(self, weights: Array, *, curves: bool = True) -> ResampledMetrics:
        """Metrics for weights (R, units).

        The curves are sensitivity at false positive rates of 0, 0.01 .. 1, and precision at the same recalls.
        """
        totals = weights @ self._sums
        points = len(self.scored.predicted)
        by_point = {
            name: metrics.confusion_metrics(totals[:, 4 * k : 4 * k + 4])
            for k, name in enumerate(self.scored.predicted)
        }
        ranking, curve_values = self._ranking_metrics(weights, curves)
        calibrated, uncalibrated = (_losses(terms) for terms in np.split(totals[:, 4 * points :], 2, axis=1))
        raw = {f"{name}_raw": values for name, values in uncalibrated.items()}
        return ResampledMetrics(by_point, {**ranking, **calibrated, **raw}, curve_values)

    def _ranking_metrics(self, weights: Array, curves: bool) -> tuple[dict[str, Array], dict[str, Array]]:
        """AUC and average precision (R,), and the curves (R, 101)."""
        weight = weights.astype(np.int32)[:, self._unit]
        tp = _cumulative(weight * self._tumour, self._thresholds)
        positives = _cumulative(weight, self._thresholds)
        fp = positives - tp
        tumours, others = tp[:, -1], fp[:, -1]
        precision = tp / np.maximum(positives, 1)
        steps = np.diff(tp, axis=1, prepend=0)
        area = np.einsum("ij,ij->i", np.diff(fp, axis=1, prepend=0), 2 * tp - steps) / 2
        ranking = {
            "auc": metrics.safe_ratio(area, tumours * others),
            "average_precision": metrics.safe_ratio(np.einsum("ij,ij->i", steps, precision), tumours),
        }
        if not curves:
            return ranking, {}
        one_class = ((tumours == 0) | (others == 0))[:, None]  # such a resample has no curve
        values = {"roc": _roc_curves(fp, tp), "pr": _pr_curves(tp, positives)}
        return ranking, {name: np.where(one_class, np.nan, curve) for name, curve in values.items()}


def _sum_by_unit(units: ResamplingUnits, columns: Array) -> Array:
    """Rows (N, k) summed by unit (units, k)."""
    if units.kind == "patches":
        return columns
    return np.stack([np.bincount(units.index, column, minlength=units.count) for column in columns.T], axis=1)


def _loss_terms(labels: Array, probability: Array) -> Array:
    """The terms whose sums NLL, Brier score and ECE follow from, (N, 3 + BINS): both losses, 1, and the bins' gaps."""
    clipped = np.clip(probability, 1e-15, 1 - 1e-15)
    nll = -np.log(np.where(labels == 1, clipped, 1 - clipped))
    gaps = np.eye(BINS)[bin_index(probability)] * (labels - probability)[:, None]
    return np.column_stack([nll, (probability - labels) ** 2, np.ones(len(labels)), gaps])


def _losses(totals: Array) -> dict[str, Array]:
    """NLL, Brier score and ECE (R,) of summed terms (R, 3 + BINS)."""
    count = totals[:, 2]
    gap = np.abs(totals[:, 3:]).sum(axis=1)
    return {"nll": totals[:, 0] / count, "brier": totals[:, 1] / count, "ece": gap / count}


def _cumulative(weight: Array, thresholds: Array) -> Array:
    """Cumulative weight (R, thresholds) of the patches down to each threshold."""
    return np.cumsum(weight, axis=1, dtype=np.int32)[:, thresholds].astype(np.float64)


def _roc_curves(fp: Array, tp: Array) -> Array:
    """Sensitivity (R, 101) along `CURVE_GRID` of the false positive rate, from cumulative counts (R, thresholds)."""
    zero = np.zeros((len(fp), 1))
    counts = zip(np.hstack([zero, fp]), np.hstack([zero, tp]), strict=True)
    return np.array([np.interp(CURVE_GRID * max(x[-1], 1), x, y, left=np.nan) / max(y[-1], 1) for x, y in counts])


def _pr_curves(tp: Array, positives: Array) -> Array:
    """Precision (R, 101) at the first threshold that reaches each recall of `CURVE_GRID`, from cumulative counts."""
    return np.array([_precision_at_recalls(*counts) for counts in zip(tp, positives, strict=True)])


def _precision_at_recalls(tp: Array, positives: Array) -> Array:
    first = np.searchsorted(positives, 0, side="right")  # a resample may hold no patch above the highest thresholds
    reached = np.clip(np.searchsorted(tp, CURVE_GRID * tp[-1] - 1e-9), first, len(tp) - 1)
    precision: Array = tp[reached] / np.maximum(positives[reached], 1)
    return precision
