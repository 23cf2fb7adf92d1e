"""Bootstrap: what is drawn, and every figure for all draws at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.rng import derived_seed
from pcam_model.evaluation import metrics
from pcam_model.evaluation.calibration import BINS, bin_of

Array = NDArray[Any]
RESAMPLES = 2000
FEW = 20  # slides, below which a bootstrap over them is rough
AT_ONCE = 300_000  # weights in memory at a time
GRID = np.linspace(0, 1, 101)
GROUPS = 200  # of the jackknife, at most
BOOTSTRAP, JACKKNIFE = 40, 43  # what the randomness of a place is for


@dataclass(frozen=True)
class ResamplingUnits:
    """What is drawn with replacement: slides where all are known, else patches.

    Attributes:
        of: int64 (N,), the unit of each patch.
        count: how many units there are.
        kind: "slides" or "patches".
    """

    of: Array
    count: int
    kind: str


def units(slide: pd.Series) -> ResamplingUnits:
    """Slides, when every patch has one and there are at least two; else patches, as if each stood alone."""
    known = slide.notna() & (slide.astype("string").fillna("") != "")
    if known.all() and slide.nunique() > 1:
        of, names = pd.factorize(slide)
        return ResamplingUnits(of.astype(np.int64), len(names), "slides")
    return ResamplingUnits(np.arange(len(slide)), len(slide), "patches")


def draws(of: ResamplingUnits, resamples: int, seed: int, *, patches: int) -> Iterator[Array]:
    """How often each unit was drawn, int64 (some, units) at a time; the same units give the same draws."""
    random = np.random.default_rng(derived_seed(seed, BOOTSTRAP))
    for rows in _some(resamples, patches):
        drawn = random.integers(0, of.count, (len(rows), of.count)) + of.count * np.arange(len(rows))[:, None]
        yield np.bincount(drawn.ravel(), minlength=len(rows) * of.count).reshape(len(rows), of.count)


def left_out(of: ResamplingUnits, seed: int, *, patches: int) -> Iterator[Array]:
    """Weights int64 (some, units) at a time, each without one of at most 200 equal groups of units: the jackknife."""
    groups = min(of.count, GROUPS)
    group = np.random.default_rng(derived_seed(seed, JACKKNIFE)).permutation(np.arange(of.count) % groups)
    for rows in _some(groups, patches):
        yield (group != rows[:, None]).astype(np.int64)


def _some(rows: int, patches: int) -> Iterator[Array]:
    """Row numbers, as many at a time as memory and caches like."""
    some = max(1, AT_ONCE // patches)
    return (np.arange(start, min(start + some, rows)) for start in range(0, rows, some))


@dataclass(frozen=True)
class ScoringResult:
    """Patches that a network has judged.

    Attributes:
        labels: (N,) of 0 and 1.
        odds: (N,) log odds of tumour as the network said them; they rank.
        probability: (N,) calibrated; it is what NLL, Brier and ECE are of.
        raw: (N,) before calibration.
        called: operating point to (N,) of bool, what is called tumour there.
        units: what intervals draw.
    """

    labels: Array
    odds: Array
    probability: Array
    raw: Array
    called: dict[str, Array]
    units: ResamplingUnits


class Statistics:
    """Every figure of judged patches for weights on the units: all ones give the value, a draw a resample."""

    def __init__(self, scored: ScoringResult):
        self.scored = scored
        columns = [metrics.cells(scored.labels, called) for called in scored.called.values()]
        columns += [_proper(scored.labels, probability) for probability in (scored.probability, scored.raw)]
        self.sums = _sum_by(scored.units, np.hstack(columns))
        order = np.argsort(-scored.odds, kind="stable")
        self.unit, self.tumour = scored.units.of[order], scored.labels[order].astype(np.int32)
        self.ends = np.flatnonzero(np.append(np.diff(scored.odds[order]) != 0, True))

    def __call__(self, weights: Array, *, curves: bool = True) -> dict[str, dict[str, Array]]:
        """`weights` (R, units) to operating point -> figure -> (R,), those of no point under ""; curves under "curves".

        The curves are (R, 101): sensitivity at 1 - specificity of 0, 0.01 .. 1; precision at the same recalls.
        """
        totals = weights @ self.sums
        points = {name: metrics.rates(totals[:, 4 * at : 4 * at + 4]) for at, name in enumerate(self.scored.called)}
        ranks, drawn = self._ranks(weights, curves)
        after, before = np.split(totals[:, 4 * len(points) :], 2, axis=1)
        raw = {f"{name}_raw": values for name, values in _proper_figures(before).items()}
        return {**points, "": {**ranks, **_proper_figures(after), **raw}, "curves": drawn}

    def _ranks(self, weights: Array, wanted: bool) -> tuple[dict[str, Array], dict[str, Array]]:
        weight = weights.astype(np.int32)[:, self.unit]
        hits, all_ = _cumulative(weight * self.tumour, self.ends), _cumulative(weight, self.ends)
        alarms = all_ - hits
        tumours, others = hits[:, -1], alarms[:, -1]
        precision = hits / np.maximum(all_, 1)
        steps = np.diff(hits, axis=1, prepend=0)
        area = np.einsum("ij,ij->i", np.diff(alarms, axis=1, prepend=0), 2 * hits - steps) / 2
        figures = {
            "auc": metrics.ratio(area, tumours * others),
            "average_precision": metrics.ratio(np.einsum("ij,ij->i", steps, precision), tumours),
        }
        if not wanted:
            return figures, {}
        one_class = (tumours == 0) | (others == 0)  # a draw of one class has no curve
        curves = {"roc": _roc(alarms, hits), "pr": _pr(hits, precision)}
        return figures, {name: np.where(one_class[:, None], np.nan, curve) for name, curve in curves.items()}


def _sum_by(of: ResamplingUnits, columns: Array) -> Array:
    """Rows (N, k) summed by unit (units, k)."""
    if of.kind == "patches":
        return columns
    return np.stack([np.bincount(of.of, column, minlength=of.count) for column in columns.T], axis=1)


def _proper(labels: Array, probability: Array) -> Array:
    """What NLL, Brier and ECE are sums of: (N, 2 + 1 + BINS): both losses, one, and the gap in its bin."""
    safe = np.clip(probability, 1e-15, 1 - 1e-15)
    nll = -np.log(np.where(labels == 1, safe, 1 - safe))
    gaps = np.eye(BINS)[bin_of(probability)] * (labels - probability)[:, None]
    return np.column_stack([nll, (probability - labels) ** 2, np.ones(len(labels)), gaps])


def _proper_figures(totals: Array) -> dict[str, Array]:
    count = totals[:, 2]
    gap = np.abs(totals[:, 3:]).sum(axis=1)
    return {"nll": totals[:, 0] / count, "brier": totals[:, 1] / count, "ece": gap / count}


def _cumulative(weight: Array, ends: Array) -> Array:
    return np.cumsum(weight, axis=1, dtype=np.int32)[:, ends].astype(np.float64)


def _roc(alarms: Array, hits: Array) -> Array:
    """Sensitivity (R, 101) along `GRID` of 1 - specificity, from cumulative counts (R, thresholds)."""
    drawn = [np.interp(GRID * max(x[-1], 1), x, y, left=np.nan) / max(y[-1], 1)
             for x, y in ((np.append(0, x), np.append(0, y)) for x, y in zip(alarms, hits, strict=True))]  # fmt: skip
    return np.array(drawn)


def _pr(hits: Array, precision: Array) -> Array:
    """Precision (R, 101) at the first threshold that reaches each recall of `GRID`."""
    last = hits.shape[1] - 1
    return np.array([p[np.minimum(np.searchsorted(h, GRID * h[-1] - 1e-9), last)]
                     for h, p in zip(hits, precision, strict=True)])  # fmt: skip
