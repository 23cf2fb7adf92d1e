"""Metrics with their intervals, as reports and records of steps have them."""

from pcam_model.core.schema import Record

METRIC_TITLES = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE",
}
"""Every metric, in the order in which they are shown."""


class Estimate(Record):
    """A metric, with its 95 % interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


def describe_estimate(estimate: Estimate) -> str:
    """A metric with its interval, as in `0.9312 (0.9210 to 0.9401)`."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"
