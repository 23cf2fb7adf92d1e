"""The sentences of the report and of the model card."""

from collections.abc import Mapping
from dataclasses import dataclass

from pcam_model.core.estimate import METRIC_TITLES, Estimate
from pcam_model.evaluation.bootstrap import FEW_SLIDES
from pcam_model.evaluation.calibration import BINS
from pcam_model.evaluation.evidence import EXTERNAL, SCORING_SECONDS, Example
from pcam_model.evaluation.report_schema import (
    Calibration,
    Difference,
    HeatInCentre,
    ReportContent,
    SplitReport,
)
from pcam_model.evaluation.style import STAGE_TITLES
from pcam_model.training.lr_curve import LrCurve

ABSTENTION_TITLES = {
    "coverage_no_tumour": "Coverage, no tumour",
    "coverage_tumour": "Coverage, tumour",
    "unsure": "Unsure",
    "unsure_no_tumour": "Unsure, of those without tumour",
    "unsure_tumour": "Unsure, of those with tumour",
    "accuracy_decided": "Accuracy where not unsure",
}
SPLIT_TITLES = {"valid": "Validation", "test": "Test", "train": "Training", "new": "New patches"}
CLASS_TITLES = {0: "no tumour", 1: "tumour"}
RULE_TITLES = {"youden": "Youden", "sensitivity95": "Sensitivity ≥ 0.95", "specificity95": "Specificity ≥ 0.95"}
GENERATED = (
    "The model was trained and scored on generated patches, which only look like tissue: these metrics say that the "
    "pipeline works, and nothing about real tissue."
)
NO_TEST = (
    "There is no test split, so the validation split served for choosing as well: temperature and thresholds are "
    "cross-fitted, but a config that is kept for these metrics was chosen by them. They are optimistic; score the "
    "model on other patches, or give split.test above 0."
)


@dataclass(frozen=True)
class Sentences:
    """The sentences that depend on the content; empty where there is nothing to say.

    Attributes:
        lead: network, training and source.
        intervals: how the intervals of the headline split were made.
        figures: the definitions of the metrics.
        points: where the thresholds come from.
        calibration: temperature, and what it says.
        no_test: a warning where there is no test split.
        generated: a warning where the patches are generated.
        domains: the worst domain, beside all patches; empty where no domain is known.
        abstention: what the decisions rest on, or why there are none.
        heat: the share of the heat inside the centre.
        data: name to value of the data's description.
    """

    lead: str
    intervals: str
    figures: str
    points: str
    calibration: str
    no_test: str
    generated: str
    domains: str
    abstention: str
    heat: str
    data: dict[str, str]


def write_sentences(content: ReportContent) -> Sentences:
    """The sentences of a report."""
    headline = content.splits[content.headline_split]
    return Sentences(
        lead=_lead(content),
        intervals=_intervals(headline),
        figures=_figures(content, headline),
        points=_points(content, headline),
        calibration=_calibration(content),
        no_test=NO_TEST if content.headline_split == "valid" else "",
        generated=GENERATED if content.config.get("source", {}).get("kind") == "sample" else "",
        domains=_domains(headline),
        abstention=_abstention(content.calibration),
        heat=_heat(content.heat_in_centre),
        data=_data(content),
    )


def _lead(content: ReportContent) -> str:
    model, source = content.config.get("model", {}), content.pack.source or "a source that was not named"
    arch, size = model.get("arch", "A network"), model.get("image_size")
    network = f"{arch} at {size} × {size} pixels" if size else arch
    if content.published:
        return f"{network}, as it was published; scored on {source}."
    trained = sum(content.split.counts.get("train", {}).values())
    return f"{network}, trained on {f'{trained:,} patches; source: ' if trained else ''}{source}."


def _intervals(split: SplitReport) -> str:
    intervals = split.intervals
    made = (
        f"Intervals are 95 %, bias-corrected and accelerated, from {intervals.resamples:,} bootstrap resamples of "
        f"{intervals.units:,} {intervals.unit}."
    )
    if intervals.unit == "patches":
        return f"{made} Slides are not known, so patches of one count as independent: the intervals are too narrow."
    few = f" Fewer than {FEW_SLIDES} slides give rough intervals, though these are widened for it."
    return made + few if intervals.units < FEW_SLIDES else made


def _figures(content: ReportContent, headline: SplitReport) -> str:
    methods = "; ".join(f"{split_title(name).lower()}: {split.method}" for name, split in content.splits.items())
    return (
        f"Accuracy to F1 at the operating point “{point_title(headline.operating_point)}”; NLL (in nats), Brier score "
        f"and ECE after calibration, lower is better. ECE: the gap between probability and share of tumour, averaged "
        f"over {BINS} bins of equal width by their patches. Thresholds and temperature, {methods}."
    )


def _points(content: ReportContent, headline: SplitReport) -> str:
    thresholds = (
        f"Thresholds: {headline.method}. A rule that holds on the split that chose it may not hold exactly here."
    )
    configured = content.operating_point
    if configured in headline.operating_points:
        return thresholds
    return (
        f"{thresholds} {point_title(configured)} was configured, but could not be chosen: "
        f"{point_title(headline.operating_point)} stands in."
    )


def _calibration(content: ReportContent) -> str:
    temperature = content.calibration.temperature
    tendency = "overconfident" if temperature > 1.02 else "underconfident" if temperature < 0.98 else "well calibrated"
    sentence = f"temperature {temperature:.3f}, {content.calibration.method} (the network was {tendency})."
    return sentence + _prevalence(content)


def _prevalence(content: ReportContent) -> str:
    """What probabilities mean where they are for another share of tumour; empty where they are not."""
    prevalence, headline = content.calibration.prevalence, content.splits[content.headline_split]
    if prevalence is None:
        return ""
    sentence = (
        f" Probabilities are for a share of tumour of {prevalence:.2%}: log odds are shifted by "
        f"{content.calibration.bias:+.3f}, and NLL, Brier score and ECE weigh the classes by it; accuracy, PPV, NPV "
        "and F1 are of the patches as they are."
    )
    found = headline.figures["sensitivity"].value * prevalence
    false_alarms = (1 - headline.figures["specificity"].value) * (1 - prevalence)
    if not found + false_alarms:
        return sentence
    return f"{sentence} At that share {found / (found + false_alarms):.1%} of the patches called tumour have it."


def _domains(split: SplitReport) -> str:
    if not split.domains:
        return ""
    ranked = [row for row in split.domains if "auc" in row.figures]
    if not ranked:
        return f"None of the {len(split.domains)} domains has patches of both classes, so none has an AUC."
    worst = ranked[0]
    figures = ", ".join(
        f"{METRIC_TITLES[name]} {format_estimate(estimate)}" for name, estimate in worst.figures.items()
    )
    known = sum(row.patches for row in split.domains)
    unknown = f" Of {split.patches - known:,} patches the domain is not known." if known < split.patches else ""
    return (
        f"Worst of {len(split.domains)} domains is {worst.domain}: {figures}, on {worst.patches:,} patches; over all "
        f"patches the AUC is {format_estimate(split.figures.get('auc'))}.{unknown}"
    )


def _abstention(calibration: Calibration) -> str:
    quantiles, method = calibration.conformal, calibration.conformal_method
    if quantiles is None:
        return f"There are no decisions: {method}."
    sentence = (
        f"The decision is unsure where a patch could be of both classes, or of neither, by class-conditional conformal "
        f"sets that shall hold the true class of {1 - quantiles.alpha:.0%} of the patches of each class; {method}."
    )
    if quantiles.unit == "patches":
        return f"{sentence} Slides are not known, so patches of one count as independent: on new slides sets hold less."
    return sentence


def tta_sentence(split: str, gain: Difference, cost: Mapping[str, float | int | str]) -> str:
    """The gain of averaging 8 views on a split, and its cost."""
    seconds = cost.get(SCORING_SECONDS)
    scoring = f"; scoring took {seconds:,.0f} s" if isinstance(seconds, float | int) and seconds else ""
    return (
        f"Averaging 8 views, {split_title(split).lower()}: AUC {gain.auc_first:.4f} → {gain.auc_second:.4f}, "
        f"a difference of {gain.value:+.4f} (95 %: {gain.low:+.4f} to {gain.high:+.4f}, over {gain.unit}), "
        f"for 8 forward passes a patch{scoring}."
    )


def _heat(heat: HeatInCentre | None) -> str:
    if heat is None or heat.mean_share is None:
        return ""
    blank = f"; {heat.blank:,} without any heat are left out" if heat.blank else ""
    return (
        f"Over {heat.patches:,} detected tumours, {heat.mean_share:.0%} of the heat lies inside the square "
        f"(chance: {heat.chance:.0%}){blank}."
    )


def _data(content: ReportContent) -> dict[str, str]:
    rows = {"Source": content.pack.source or "–"}
    if content.split.kind != EXTERNAL:
        rows["Split"] = content.split.kind
    for split, counts in content.split.counts.items():
        negative, positive = counts.get("0", 0), counts.get("1", 0)
        total = negative + positive
        rows[split_title(split)] = f"{total:,} patches, {positive:,} with tumour" if total else "none"
    if content.unlabelled:
        rows["Unlabelled"] = f"{content.unlabelled:,} patches, predicted in submission.csv"
    assumed = " (assumed: the source does not tell it)" if content.pack.mpp_assumed else ""
    rows["Pixel size"] = f"{content.pack.mpp:g} µm{assumed}"
    rows["Pack"] = content.pack.digest[:16] or "–"
    if content.initial_weights:
        rows["Initial weights"] = content.initial_weights
    return rows


def lr_sentence(stage: str, curve: LrCurve) -> str:
    """The result of an LR range test."""
    reason = f" {as_sentence(curve.reason)}" if curve.reason else ""
    return f"LR range test, {STAGE_TITLES[stage].lower()}: {curve.suggestion:.3g} ({curve.method}).{reason}"


def example_caption(example: Example) -> str:
    """Label, prediction and slide of an example, and the class that its heat explains."""
    slide = f", slide {example.slide}" if example.slide else ""
    predicted = CLASS_TITLES[example.predicted]
    heat = f" Heat: {predicted}." if example.heat is not None else ""
    label = CLASS_TITLES[example.label]
    return f"Label {label}, predicted {predicted} (probability of tumour {example.probability:.3f}){slide}.{heat}"


def split_title(split: str) -> str:
    """The title of a split."""
    return SPLIT_TITLES.get(split, split)


def point_title(point: str) -> str:
    """The title of an operating point."""
    return RULE_TITLES.get(point, f"Probability {point}")


def as_sentence(text: str) -> str:
    """The text with a capital in front and a full stop at the end."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) or not text else '.'}"


def format_value(value: float | None) -> str:
    """Three decimals; a dash where there is no value."""
    return "–" if value is None else f"{value:.3f}"


def format_estimate(estimate: Estimate | None) -> str:
    """A value with its interval; a dash where there is none."""
    if estimate is None:
        return "–"
    interval = "" if estimate.low is None else f" ({format_value(estimate.low)}–{format_value(estimate.high)})"
    return format_value(estimate.value) + interval


def format_cost(value: float | int | str) -> str:
    """Numbers with separators, texts as they are."""
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else value
