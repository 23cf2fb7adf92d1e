"""From predictions to judged sides: what is chosen is chosen on the validation part, and never used to report it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import ModelError
from pcam_model.core.rng import derived_seed
from pcam_model.evaluation import metrics
from pcam_model.evaluation import operating_points as operating
from pcam_model.evaluation.bootstrap import ResamplingUnits, ScoringResult, units
from pcam_model.evaluation.calibration import fit_temperature
from pcam_model.evaluation.evidence import Evidence

Array = NDArray[Any]
COLUMNS = ["id", "slide", "label", "logit0", "logit1"]
FOLDS = 5
CROSS_FIT = 41  # what the randomness of a place is for


@dataclass(frozen=True)
class ChosenThresholds:
    """A temperature, and the threshold of each operating point on the probability that it gives."""

    temperature: float
    thresholds: dict[str, float]
    how: str


@dataclass(frozen=True)
class JudgedSplit:
    """A side, judged with what may be used there."""

    table: pd.DataFrame
    scored: ScoringResult
    how: str
    """Where temperature and thresholds come from, for people."""


def judge_splits(evidence: Evidence) -> tuple[ChosenThresholds, dict[str, JudgedSplit]]:
    """What was chosen, and every side judged: the validation part by cross-fitting, the others as chosen.

    Raises:
        SplitError: a side holds one class only.
        ModelError: an output is not finite, or a table lacks a column.
    """
    sides = {name: _read(name, table) for name, table in evidence.predictions.items()}
    points = list(dict.fromkeys([evidence.score.operating_point, *operating.CHOSEN]))
    chosen = _chosen(evidence, sides, points)
    judged = {}
    for name, (labels, odds, of) in sides.items():
        scored, how = _apply(chosen, labels, odds, of), chosen.how
        if name == "valid" and evidence.chosen is None:
            scored, how = _cross_fit(labels, odds, of, points, evidence.seed)
        judged[name] = JudgedSplit(evidence.predictions[name].reset_index(drop=True), scored, how)
    return chosen, judged


def _read(name: str, table: pd.DataFrame) -> tuple[Array, Array, ResamplingUnits]:
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ModelError(
            f"The {name} predictions lack {', '.join(missing)}, expected {', '.join(COLUMNS)}; score again"
        )
    labels = metrics.checked_labels(table["label"].to_numpy(), name)
    return labels, metrics.margin(table[["logit0", "logit1"]].to_numpy()), units(table["slide"])


def _chosen(
    evidence: Evidence, sides: Mapping[str, tuple[Array, Array, ResamplingUnits]], points: list[str]
) -> ChosenThresholds:
    if evidence.chosen is not None:
        known = {**evidence.chosen["thresholds"], **_fixed(points, "").thresholds}
        thresholds = {point: float(known[point]) for point in points if point in known}
        return ChosenThresholds(float(evidence.chosen["temperature"]), thresholds, "chosen when the model was trained")
    if "valid" in sides:
        return _choose(*sides["valid"][:2], points, "chosen on the validation part")
    return _fixed(points, "there is no validation part to choose on, so temperature 1 and given thresholds")


def _choose(labels: Array, odds: Array, points: list[str], how: str) -> ChosenThresholds:
    temperature = fit_temperature(labels, odds)
    probability = metrics.sigmoid(odds / temperature)
    return ChosenThresholds(temperature, {point: operating.choose(point, labels, probability) for point in points}, how)


def _fixed(points: list[str], how: str) -> ChosenThresholds:
    given = {point: operating.fixed(point) for point in points}
    return ChosenThresholds(1.0, {point: at for point, at in given.items() if at is not None} or {"0.5": 0.5}, how)


def _apply(chosen: ChosenThresholds, labels: Array, odds: Array, of: ResamplingUnits) -> ScoringResult:
    probability = metrics.sigmoid(odds / chosen.temperature)
    called = {point: probability >= threshold for point, threshold in chosen.thresholds.items()}
    return ScoringResult(labels, odds, probability, metrics.sigmoid(odds), called, of)


def _cross_fit(
    labels: Array, odds: Array, of: ResamplingUnits, points: list[str], seed: int
) -> tuple[ScoringResult, str]:
    """Each fifth of the units is judged with what the other four fifths chose."""
    folds = min(FOLDS, of.count)
    fold = np.random.default_rng(derived_seed(seed, CROSS_FIT)).permutation(np.arange(of.count) % folds)[of.of]
    if any(len(np.unique(labels[fold != each])) < 2 for each in range(folds)):
        how = f"too few {of.kind} to choose on some and report the others, so temperature 1 and given thresholds"
        return _apply(_fixed(points, how), labels, odds, of), how
    probability, called = np.empty(len(labels)), {point: np.empty(len(labels), bool) for point in points}
    for here in (fold == each for each in range(folds)):
        part = _apply(_choose(labels[~here], odds[~here], points, ""), labels[here], odds[here], of)
        probability[here] = part.probability
        for point in points:
            called[point][here] = part.called[point]
    how = f"cross-fitted (each of {folds} parts is judged with what the other {folds - 1} chose, {of.kind} kept whole)"
    return ScoringResult(labels, odds, probability, metrics.sigmoid(odds), called, of), how
