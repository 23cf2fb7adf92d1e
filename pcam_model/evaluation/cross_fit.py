"""Temperature and thresholds, chosen on the validation split and never reported on the patches that chose them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import ModelError
from pcam_model.core.rng import derived_seed
from pcam_model.evaluation import metrics
from pcam_model.evaluation.bootstrap import ResamplingUnits, ScoredPatches, resampling_units
from pcam_model.evaluation.calibration import class_weights, fit_scaling
from pcam_model.evaluation.conformal import describe_conformal, fit_quantiles
from pcam_model.evaluation.evidence import Evidence, ScoreConfig
from pcam_model.evaluation.operating_points import RULES, choose_threshold, fixed_threshold
from pcam_model.evaluation.report_schema import Calibration

Array = NDArray[Any]
COLUMNS = ["id", "slide", "label", "logit0", "logit1"]
FOLDS = 5
CROSS_FIT_KEY = 41  # the first number of an RNG key: what the random numbers are for


@dataclass(frozen=True)
class ScoredSplit:
    """A split with its calibrated predictions.

    Attributes:
        table: of the predictions.
        scored: labels, probabilities and predicted classes.
        method: where temperature and thresholds come from, for people.
    """

    table: pd.DataFrame
    scored: ScoredPatches
    method: str


@dataclass(frozen=True)
class _Outputs:
    """Labels (N,), log odds (N,) and resampling units of a split."""

    labels: Array
    log_odds: Array
    units: ResamplingUnits

    def select(self, mask: Array) -> "_Outputs":
        """The patches of a mask (N,); the units keep the codes of the whole split."""
        units = replace(self.units, index=self.units.index[mask])
        return _Outputs(self.labels[mask], self.log_odds[mask], units)


def calibrate_splits(evidence: Evidence) -> tuple[Calibration, dict[str, ScoredSplit]]:
    """Temperature and thresholds, and every split calibrated with them; the validation split is cross-fitted.

    Raises:
        SplitError: a split holds one class only.
        ModelError: an output is not finite, or a table lacks a column.
    """
    outputs = {split: _read_outputs(split, predictions.table) for split, predictions in evidence.predictions.items()}
    points = list(dict.fromkeys([evidence.score.operating_point, *RULES]))
    calibration = _calibration(evidence, outputs, points)
    splits = {}
    for split, output in outputs.items():
        if split == "valid" and evidence.calibration is None:
            scored, method = _cross_fit(output, points, evidence.score, evidence.seed)
        else:
            weights = class_weights(output.labels, calibration.prevalence)
            scored, method = replace(_apply(calibration, output), weights=weights), calibration.method
        splits[split] = ScoredSplit(evidence.predictions[split].table.reset_index(drop=True), scored, method)
    return calibration, splits


def _read_outputs(split: str, table: pd.DataFrame) -> _Outputs:
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ModelError(
            f"The {split} predictions lack {', '.join(missing)}, expected {', '.join(COLUMNS)}; score again"
        )
    labels = metrics.validate_labels(table["label"].to_numpy(), split)
    log_odds = metrics.log_odds(table[["logit0", "logit1"]].to_numpy())
    return _Outputs(labels, log_odds, resampling_units(table["slide"]))


def _calibration(evidence: Evidence, outputs: Mapping[str, _Outputs], points: list[str]) -> Calibration:
    """Of the published model, else chosen on the validation split, else the default."""
    if evidence.calibration is not None:
        known = {**evidence.calibration.thresholds, **_default_calibration(points, "").thresholds}
        return evidence.calibration.model_copy(
            update={"thresholds": {point: known[point] for point in points if point in known}}
        )
    if "valid" in outputs:
        return _fit(outputs["valid"], points, evidence.score, "chosen on the validation split")
    return _default_calibration(
        points, "there is no validation split to choose on, so temperature 1 and given thresholds"
    )


def _fit(outputs: _Outputs, points: list[str], score: ScoreConfig, method: str = "") -> Calibration:
    scaling, alpha = fit_scaling(outputs.labels, outputs.log_odds, score.prevalence), score.conformal_alpha
    probability = scaling.probability(outputs.log_odds)
    thresholds = {point: choose_threshold(point, outputs.labels, probability) for point in points}
    conformal = fit_quantiles(outputs.labels, probability, outputs.units, alpha)
    return Calibration(
        temperature=scaling.temperature,
        bias=scaling.bias,
        prevalence=score.prevalence,
        thresholds=thresholds,
        method=method,
        conformal=conformal,
        conformal_method=describe_conformal(conformal, outputs.labels, outputs.units, alpha),
    )


def _default_calibration(points: list[str], method: str) -> Calibration:
    """Temperature 1, and the thresholds of those operating points that are numbers; 0.5 where none is."""
    numbers = {point: threshold for point in points if (threshold := fixed_threshold(point)) is not None}
    return Calibration(
        temperature=1.0,
        thresholds=numbers or {"0.5": 0.5},
        method=method,
        conformal_method="there is nothing to calibrate them on",
    )


def _apply(calibration: Calibration, outputs: _Outputs) -> ScoredPatches:
    probability = calibration.scaling.probability(outputs.log_odds)
    predicted = {point: probability >= threshold for point, threshold in calibration.thresholds.items()}
    uncalibrated = metrics.sigmoid(outputs.log_odds)
    sets = calibration.conformal.sets(probability) if calibration.conformal else None
    return ScoredPatches(outputs.labels, outputs.log_odds, probability, uncalibrated, predicted, outputs.units, sets)


def _cross_fit(outputs: _Outputs, points: list[str], score: ScoreConfig, seed: int) -> tuple[ScoredPatches, str]:
    """Calibrate each fifth of the units with what the other four fifths chose."""
    units, labels = outputs.units, outputs.labels
    folds = min(FOLDS, units.count)
    rng = np.random.default_rng(derived_seed(seed, CROSS_FIT_KEY))
    fold = rng.permutation(np.arange(units.count) % folds)[units.index]
    if any(len(np.unique(labels[fold != k])) < 2 for k in range(folds)):
        method = f"too few {units.kind} to choose on some and report the others, so temperature 1 and given thresholds"
        return _apply(_default_calibration(points, method), outputs), method
    probability, predicted = np.empty(len(labels)), {point: np.empty(len(labels), bool) for point in points}
    sets: Array | None = np.empty((len(labels), 2), bool)
    for held_out in (fold == k for k in range(folds)):
        scored = _apply(_fit(outputs.select(~held_out), points, score), outputs.select(held_out))
        probability[held_out] = scored.probability
        for point in points:
            predicted[point][held_out] = scored.predicted[point]
        if sets is None or scored.sets is None:
            sets = None  # too few units beside this fold
        else:
            sets[held_out] = scored.sets
    method = (
        f"cross-fitted (each of {folds} folds is judged with what the other {folds - 1} chose, {units.kind} kept whole)"
    )
    uncalibrated, weights = metrics.sigmoid(outputs.log_odds), class_weights(labels, score.prevalence)
    return ScoredPatches(labels, outputs.log_odds, probability, uncalibrated, predicted, units, sets, weights), method
