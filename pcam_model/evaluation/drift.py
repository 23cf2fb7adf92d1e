"""Whether new patches are of the domain that a model was evaluated on: three two-sample tests, without labels.

A domain classifier on the network's features, one on stain and sharpness, and the distance between the distributions of
the probabilities; Holm's correction over the three (1979), so that any of them alarms falsely in at most `ALPHA` of the
cases.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.schema import Record
from pcam_model.data.stain_moments import MOMENTS
from pcam_model.evaluation.drift_reference import DriftSample
from pcam_model.evaluation.two_sample import (
    PERMUTATIONS,
    TwoSampleTest,
    classifier_test,
    distance_test,
    permuted_labels,
)

ALPHA = 0.05
MIN_SLIDES = 8
"""Of the reference and of the new patches each, for tests that exchange whole slides."""
MIN_PATCHES = 20
MOST_DIFFERENT = 10
TITLES = {
    "features": "domain classifier on features",
    "stain": "domain classifier on stain and sharpness",
    "predictions": "distance of the probabilities",
}


class DriftTest(Record):
    """One of the tests."""

    statistic: float
    """AUC of the domain classifier, 0.5 where nothing differs; the Kolmogorov-Smirnov distance for predictions."""
    p: float
    """Of the permutation test."""
    p_adjusted: float
    """By Holm's correction over the tests."""
    drifted: bool
    """Whether p_adjusted is at most 0.05."""


class Shift(Record):
    """The mean of a stain moment, or of the probabilities, in the reference and in the new patches."""

    reference: float
    new: float
    deviations: float
    """Their difference, in standard deviations of the reference's patches."""


class SlideShift(Record):
    """A slide among the new patches that a domain classifier tells from the reference."""

    slide: str
    patches: int
    score: float
    """Mean of the out-of-fold scores of the classifier on features; the reference's mean is 0."""


class DriftResult(Record):
    """A comparison of new patches with a model's reference."""

    drifted: bool
    """Whether any test says so."""
    reference: int
    """Patches of the reference."""
    new: int
    """New patches that were compared."""
    unit: str
    """What the permutations exchange: slide or patch."""
    tests: dict[str, DriftTest]
    shifts: dict[str, Shift]
    slides: tuple[SlideShift, ...] = ()
    """The most different slides first; empty where slides are unknown."""

    def largest_shifts(self, count: int = 3) -> list[tuple[str, Shift]]:
        """Name and shift of what differs most."""
        return sorted(self.shifts.items(), key=lambda item: -abs(item[1].deviations))[:count]

    @property
    def meaning(self) -> str:
        """The result in a sentence."""
        found = [TITLES[name] for name, test in self.tests.items() if test.drifted]
        verdict = f"drift: {', '.join(found)}" if found else "no drift found"
        if self.unit == "slide":
            return f"{verdict}; slides were exchanged, so that slides of the same domain are no drift"
        return f"{verdict}; patches were exchanged, so that other slides of the same domain may count as drift"


def drift_markdown(result: DriftResult) -> str:
    """A result in Markdown: the sentence, the tests and what differs most."""
    lines = [f"**{result.meaning}**", "", "| test | statistic | p | drift |", "|---|---|---|---|"]
    lines += [
        f"| {TITLES[name]} | {test.statistic:.3f} | {test.p_adjusted:.3f} | {'yes' if test.drifted else 'no'} |"
        for name, test in result.tests.items()
    ]
    lines += ["", "| mean of | reference | new | deviations |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {shift.reference:.3f} | {shift.new:.3f} | {shift.deviations:+.2f} |"
        for name, shift in result.largest_shifts()
    ]
    return "\n".join(lines)


def compare_with_reference(reference: DriftSample, new: DriftSample, seed: int = 0) -> DriftResult:
    """The tests of new patches against a reference; permutations are drawn by the seed.

    Args:
        reference: of a model.
        new: at least `MIN_PATCHES` patches.
        seed: of the permutations and folds.
    """
    rng = np.random.default_rng(seed)
    units, unit = _units(reference, new)
    labels = np.repeat([0, 1], [len(reference), len(new)])
    permuted = permuted_labels(labels, units, PERMUTATIONS, rng)
    results = {
        "features": classifier_test(np.concatenate([reference.features, new.features]), permuted, units, rng),
        "stain": classifier_test(np.concatenate([reference.moments, new.moments]), permuted, units, rng),
        "predictions": distance_test(np.concatenate([reference.probabilities, new.probabilities]), permuted),
    }
    tests = _with_correction(results)
    return DriftResult(
        drifted=any(test.drifted for test in tests.values()),
        reference=len(reference),
        new=len(new),
        unit=unit,
        tests=tests,
        shifts=_shifts(reference, new),
        slides=_different_slides(new.slides, results["features"], len(reference)),
    )


def _units(reference: DriftSample, new: DriftSample) -> tuple[NDArray[np.int64], str]:
    """Codes of what is exchanged: slides where both sides have enough, else patches."""
    if min(len(set(reference.slides)), len(set(new.slides))) < MIN_SLIDES:
        return np.arange(len(reference) + len(new)), "patch"
    names = [f"reference {slide}" for slide in reference.slides] + [f"new {slide}" for slide in new.slides]
    return np.unique(names, return_inverse=True)[1].astype(np.int64), "slide"


def _with_correction(results: dict[str, TwoSampleTest]) -> dict[str, DriftTest]:
    """The tests with p-values by Holm's correction."""
    largest, adjusted = 0.0, {}
    for rank, name in enumerate(sorted(results, key=lambda name: results[name].p)):
        largest = max(largest, min(1.0, (len(results) - rank) * results[name].p))
        adjusted[name] = largest
    return {
        name: DriftTest(statistic=test.statistic, p=test.p, p_adjusted=adjusted[name], drifted=adjusted[name] <= ALPHA)
        for name, test in results.items()
    }


def _shifts(reference: DriftSample, new: DriftSample) -> dict[str, Shift]:
    moments = {name: _shift(reference.moments[:, i], new.moments[:, i]) for i, name in enumerate(MOMENTS)}
    return {**moments, "probability": _shift(reference.probabilities, new.probabilities)}


def _shift(reference: NDArray[Any], new: NDArray[Any]) -> Shift:
    means = float(reference.mean()), float(new.mean())
    spread = max(float(reference.std()), 1e-9)
    return Shift(reference=means[0], new=means[1], deviations=(means[1] - means[0]) / spread)


def _different_slides(slides: Sequence[str], test: TwoSampleTest, reference: int) -> tuple[SlideShift, ...]:
    if not slides or test.scores is None:
        return ()
    scores, names = test.scores[reference:] - test.scores[:reference].mean(), np.array(slides)
    found = [
        SlideShift(slide=str(name), patches=int((names == name).sum()), score=float(scores[names == name].mean()))
        for name in np.unique(names)
    ]
    return tuple(sorted(found, key=lambda each: -each.score)[:MOST_DIFFERENT])
