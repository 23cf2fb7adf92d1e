"""Ways to calibrate a network's outputs, and the figures of what they give."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.held_out_clusters import Array, resample_clusters
from pcam_model.evaluation.calibration import fit_temperature, reliability_curve
from pcam_model.evaluation.metrics import confusion, confusion_metrics, sigmoid
from pcam_model.evaluation.operating_points import choose_threshold

FEATURES, DRAWS, PRIOR_ITERATIONS = 32, 300, 200
SCORES = ("balanced_accuracy", "sensitivity", "specificity")
Key = tuple[str, str, str]


class Outputs(NamedTuple):
    """Of N patches: labels, log odds and clusters (N,), features (N, 512), stain moments (N, 8)."""

    labels: Array
    log_odds: Array
    features: Array
    moments: Array
    clusters: Array


class Calibrated(NamedTuple):
    """Log odds of the held-out patches, and the threshold that Youden's index chose on the validation part."""

    log_odds: Array
    youden: float


Method = Callable[[Outputs, Outputs, Outputs], Calibrated]
"""Of a sample of the training part, a validation part and the held-out part, whose labels are not looked at."""


def _calibrated(valid: Outputs, valid_log_odds: Array, held_log_odds: Array) -> Calibrated:
    return Calibrated(held_log_odds, choose_threshold("youden", valid.labels, sigmoid(valid_log_odds)))


def no_calibration(_: Outputs, valid: Outputs, held: Outputs) -> Calibrated:
    """The network's own log odds."""
    return _calibrated(valid, valid.log_odds, held.log_odds)


def temperature(_: Outputs, valid: Outputs, held: Outputs) -> Calibrated:
    """Log odds over one temperature."""
    value = fit_temperature(valid.labels, valid.log_odds)
    return _calibrated(valid, valid.log_odds / value, held.log_odds / value)


def temperature_and_bias(_: Outputs, valid: Outputs, held: Outputs) -> Calibrated:
    """Platt scaling: log odds over a temperature, plus a bias."""
    model = LogisticRegression(C=np.inf).fit(valid.log_odds[:, None], valid.labels)
    return _calibrated(
        valid, model.decision_function(valid.log_odds[:, None]), model.decision_function(held.log_odds[:, None])
    )


def _by_distance(valid: Outputs, held: Outputs, near: Array, far: Array) -> Calibrated:
    """Log odds over a temperature that depends on a distance to the training patches: exp(a + b distance), b >= 0."""
    wrong_side = np.where(valid.labels == 1, -valid.log_odds, valid.log_odds)

    def nll(values: Array) -> float:
        return float(np.logaddexp(0, wrong_side * np.exp(-values[0] - max(values[1], 0) * near)).mean())

    level, slope = minimize(nll, np.array([0.0, 0.1]), method="Nelder-Mead").x
    return _calibrated(
        valid,
        valid.log_odds * np.exp(-level - max(slope, 0) * near),
        held.log_odds * np.exp(-level - max(slope, 0) * far),
    )


def temperature_by_stain(known: Outputs, valid: Outputs, held: Outputs) -> Calibrated:
    """A temperature that depends on how far the stain is from the training patches' stains."""
    scaler = StandardScaler().fit(known.moments)
    near, far = (np.log1p(np.square(scaler.transform(part.moments)).mean(1)) for part in (valid, held))
    return _by_distance(valid, held, near, far)


def temperature_by_features(known: Outputs, valid: Outputs, held: Outputs) -> Calibrated:
    """A temperature that depends on how far the features are from the training patches' features."""
    pca = PCA(FEATURES, whiten=True, random_state=0).fit(known.features)
    near, far = (np.log1p(np.square(pca.transform(part.features)).mean(1)) for part in (valid, held))
    return _by_distance(valid, held, near, far)


def _shifted(valid: Outputs, held: Outputs, share: Callable[[Array, float], float]) -> Calibrated:
    """After `temperature`, log odds shifted to another share of tumour."""
    value = fit_temperature(valid.labels, valid.log_odds)
    before, scaled = float(valid.labels.mean()), held.log_odds / value
    after = np.clip(share(scaled, before), 0.01, 0.99)
    shift = np.log(after / (1 - after)) - np.log(before / (1 - before))
    return _calibrated(valid, valid.log_odds / value, scaled + shift)


def known_prevalence(_: Outputs, valid: Outputs, held: Outputs) -> Calibrated:
    """`temperature`, then corrected for the true share of tumour in the held-out part, as a user would state it."""
    return _shifted(valid, held, lambda *_: float(held.labels.mean()))


def estimated_prevalence(_: Outputs, valid: Outputs, held: Outputs) -> Calibrated:
    """`temperature`, then corrected for the share of tumour that expectation maximisation finds (Saerens 2002)."""

    def share(scaled: Array, before: float) -> float:
        estimate = before
        for _step in range(PRIOR_ITERATIONS):
            shift = np.log(estimate / (1 - estimate)) - np.log(before / (1 - before))
            estimate = float(np.clip(sigmoid(scaled + shift).mean(), 1e-3, 1 - 1e-3))
        return estimate

    return _shifted(valid, held, share)


METHODS: dict[str, Method] = {
    "none": no_calibration,
    "temperature": temperature,
    "temperature and bias": temperature_and_bias,
    "temperature by stain": temperature_by_stain,
    "temperature by features": temperature_by_features,
    "temperature, prevalence known": known_prevalence,
    "temperature, prevalence estimated": estimated_prevalence,
}


def figures(labels: Array, log_odds: Array, youden: float) -> dict[str, float]:
    """ECE, NLL, and balanced accuracy, sensitivity and specificity at 0.5 and at the threshold of Youden's index."""
    probability = sigmoid(log_odds)
    curve = reliability_curve(labels, probability)
    count, predicted, observed = (
        np.asarray(values) for values in (curve.count, curve.mean_predicted, curve.observed_fraction)
    )
    found = {
        "ece": float((count * np.abs(predicted - observed)).sum() / count.sum()),
        "nll": float(np.logaddexp(0, np.where(labels == 1, -log_odds, log_odds)).mean()),
    }
    for title, threshold in (("at 0.5", 0.5), ("at youden", youden)):
        scores = confusion_metrics(confusion(labels, probability, threshold))
        found |= {
            f"{name} {title}": float(scores[name]) for name in ("balanced_accuracy", "sensitivity", "specificity")
        }
    return found


def with_intervals(runs: Sequence[Mapping[Key, Any]], reference: Key) -> list[dict[str, Any]]:
    """A row for each way of training, part and method: means over the seeds, their change from the reference's,
    intervals of 95 % by bootstrap over clusters, and seconds."""
    draws = [resample_clusters(run["", "", ""].clusters, number, DRAWS) for number, run in enumerate(runs)]
    known = _figures(runs, draws, reference)
    return [_row(runs, draws, key, known) for key in runs[0] if any(key)]


def _figures(runs: Sequence[Mapping[Key, Any]], draws: Sequence[list[Array]], key: Key) -> dict[str, Array]:
    """Each figure (1 + DRAWS,), its mean over the seeds."""
    found = []
    for run, samples in zip(runs, draws, strict=True):
        labels, (log_odds, youden) = run["", "", ""].labels, run[key][0]
        found.append([figures(labels[rows], log_odds[rows], youden) for rows in samples])
    return {name: np.mean([[one[name] for one in run] for run in found], axis=0) for name in found[0][0]}


def _row(
    runs: Sequence[Mapping[Key, Any]], draws: Sequence[list[Array]], key: Key, known: Mapping[str, Array]
) -> dict[str, Any]:
    values = _figures(runs, draws, key)
    row: dict[str, Any] = dict(zip(("training", "part", "method"), key, strict=True))
    for name, value in values.items():
        changes = value - known[name]
        row[name] = {
            "value": round(float(value[0]), 4),
            "interval": np.round(np.nanquantile(value[1:], [0.025, 0.975]), 4).tolist(),
            "change": round(float(changes[0]), 4),
            "interval of the change": np.round(np.nanquantile(changes[1:], [0.025, 0.975]), 4).tolist(),
        }
    seconds = [run[key][1] for run in runs]
    return row | {"seconds": {name: round(float(np.mean([one[name] for one in seconds])), 1) for name in seconds[0]}}
