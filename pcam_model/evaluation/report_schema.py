"""The content of report.json as records, and its JSON schema: `python -m pcam_model.evaluation.report_schema`."""

import json
import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from pcam_model.core.conformal import ConformalQuantiles
from pcam_model.core.estimate import Estimate
from pcam_model.core.pixel_size import PCAM_MPP
from pcam_model.core.platt_scaling import PlattScaling
from pcam_model.core.schema import Record
from pcam_model.core.stage_names import StageName

SCHEMA_VERSION = 1


def _null_unless_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


FiniteOrNull = Annotated[float | None, BeforeValidator(_null_unless_finite)]
"""A number; null where it is NaN or infinite, which JSON does not know."""


class SplitMetrics(Record):
    """The figures in a split of a report.json; its other keys may be any."""

    model_config = ConfigDict(extra="ignore")

    figures: dict[str, Estimate]


class ReportMetrics(Record):
    """The figures in a report.json, of this version or another; its other keys may be any."""

    model_config = ConfigDict(extra="ignore")

    splits: dict[str, SplitMetrics]


class Difference(Record):
    """The metrics of the second model minus those of the first, on the same patches."""

    first: str
    second: str
    auc_first: float
    auc_second: float
    value: float
    """The difference in AUC."""
    low: float
    """Lower end of the 95 % interval, by a paired bootstrap."""
    high: float
    unit: str
    """What the bootstrap resampled: slides or patches."""
    units: int
    """How many of them there are."""
    z: FiniteOrNull
    """Of DeLong's test, for independent patches: with slides the interval above is safer. Null: infinite."""
    p: float
    """Two-sided p-value of DeLong's test."""
    figures: dict[str, Estimate]
    """The difference in every metric, with its interval from the same paired resamples."""


class ConfusionMatrix(Record):
    """Numbers of patches; "positive" is tumour."""

    tn: int
    fp: int
    fn: int
    tp: int

    def counts(self) -> tuple[int, int, int, int]:
        """tn, fp, fn, tp, as scikit-learn orders them."""
        return self.tn, self.fp, self.fn, self.tp


class OperatingPoint(Record):
    """Metrics of a split at one threshold."""

    threshold: float
    """The calibrated probability from which a patch is called tumour."""
    confusion: ConfusionMatrix
    figures: dict[str, Estimate]


class IntervalMethod(Record):
    """How the intervals of a split were made."""

    unit: Literal["slides", "patches"]
    """What the bootstrap resampled."""
    units: int
    """How many of them there are."""
    resamples: int


class Band(Record):
    """A curve along a grid, with its pointwise 95 % band; null where no resample has a value."""

    value: list[FiniteOrNull]
    low: list[FiniteOrNull]
    high: list[FiniteOrNull]


class Curves(Record):
    """ROC and precision-recall curve."""

    grid: list[float]
    """0, 0.01 .. 1: the false positive rate of `roc`, the recall of `pr`."""
    roc: Band
    """Sensitivity."""
    pr: Band
    """Precision."""


class ReliabilityCurve(Record):
    """The bins of equal width that hold patches, as scikit-learn's `calibration_curve` gives them."""

    count: list[int]
    """Patches of each bin."""
    mean_predicted: list[float]
    """Mean calibrated probability of each bin."""
    observed_fraction: list[float]
    """Fraction of each bin that is tumour."""


class SlideMetrics(Record):
    """Metrics of one slide."""

    slide: str
    patches: int
    tumour: int
    accuracy: float
    mean_probability: float
    auc: float | None
    """Null where the slide has one class only."""


class DomainMetrics(Record):
    """Metrics of one domain, as of a centre or a scanner."""

    domain: str
    patches: int
    tumour: int
    intervals: IntervalMethod
    figures: dict[str, Estimate]
    """auc, sensitivity, specificity and ece, with intervals; less those that a domain of one class does not have."""


class Abstention(Record):
    """What the conformal sets bring on a split: a patch is `unsure` where its set holds both classes, or none."""

    alpha: float
    """The share of patches of each class whose set may lack it; coverage is to be 1 - alpha."""
    coverage_no_tumour: Estimate | None
    """Share of the patches without tumour whose set holds `no tumour`."""
    coverage_tumour: Estimate | None
    """Share of the patches with tumour whose set holds `tumour`."""
    unsure: Estimate | None
    """Share of unsure patches."""
    unsure_no_tumour: Estimate | None
    """Share of unsure ones among the patches without tumour."""
    unsure_tumour: Estimate | None
    """Share of unsure ones among the patches with tumour."""
    accuracy_decided: Estimate | None
    """Accuracy of the decisions; null where all patches are unsure."""


class SplitReport(Record):
    """Everything that was measured on one split."""

    patches: int
    tumour: int
    """How many of the patches are tumour."""
    intervals: IntervalMethod
    method: str
    """Where temperature and thresholds come from."""
    operating_point: str
    """The operating point of `figures` and `confusion`: the configured one, or another where it could not be chosen."""
    threshold: float
    figures: dict[str, Estimate]
    """Every metric, after calibration."""
    uncalibrated: dict[str, Estimate]
    """NLL, Brier score and ECE before calibration."""
    confusion: ConfusionMatrix
    operating_points: dict[str, OperatingPoint]
    reliability: ReliabilityCurve
    curves: Curves
    slides: list[SlideMetrics]
    """Known slides, the least accurate first."""
    domains: list[DomainMetrics] = Field(default_factory=list)
    """Known domains, that with the lowest AUC first; those of one class, which have none, last."""
    abstention: Abstention | None = None
    """Null where there are no conformal sets."""


class Calibration(Record):
    """How log odds become probabilities, and the threshold of each operating point on them."""

    temperature: float
    """Log odds are divided by it."""
    bias: float = 0.0
    """Added to the log odds after that."""
    prevalence: float | None = None
    """The share of tumour that probabilities, and NLL, Brier score and ECE, are for; null: that of the patches."""
    thresholds: dict[str, float]
    """Operating point to the calibrated probability from which a patch is called tumour."""
    method: str = "chosen when the model was trained"
    """Where they come from."""
    conformal: ConformalQuantiles | None = None
    """Null where there is nothing to calibrate them on, or too little."""
    conformal_method: str = ""
    """What the conformal quantiles rest on, or why there are none."""

    @property
    def scaling(self) -> PlattScaling:
        """What calibrates log odds."""
        return PlattScaling(temperature=self.temperature, bias=self.bias)


class PackSummary(Record):
    """The patches that were scored."""

    digest: str = ""
    """SHA-256 of the pack."""
    count: int = 0
    labelled: int = 0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of red, green and blue, 0..1."""
    std: tuple[float, float, float] = (0.0, 0.0, 0.0)
    archive: str = ""
    """SHA-256 of the source's archive."""
    quarantined: int = 0
    """Unreadable images that were left out."""
    source: str = ""
    """The source, for people."""
    mpp: float = PCAM_MPP
    """Microns per pixel."""
    mpp_assumed: bool = True
    """Whether that is assumed."""


class SplitSummary(Record):
    """How the patches are divided, and what figures on that division mean."""

    kind: str
    """slide, cluster, random, official ...; external: patches that no split of the model's training divides."""
    counts: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Split to class ("0", "1") to number of patches."""
    meaning: str
    digest: str = ""


class HeatInCentre(Record):
    """Share of the heat inside the centre 32 x 32 pixels, which decide the label, over detected tumours."""

    mean_share: float | None
    """Null where no tumour was detected, or no heatmap has any heat."""
    chance: float
    """The centre's share of the area."""
    patches: int
    blank: int
    """Patches whose heatmap has no heat at all; the mean leaves them out."""


class LrFinderSummary(Record):
    """The learning rate that an LR range test suggested and training used."""

    suggestion: float
    method: str
    """valley, steep or minimum; default where the curve holds no information."""
    informative: bool
    """Whether the loss falls by more than its noise explains."""
    reason: str
    """Why this learning rate, for people."""


class EpochMetrics(Record):
    """Losses and metrics of an epoch; null where they are not finite."""

    stage: StageName
    epoch: int
    """From 1."""
    step: int
    """Steps of the stage so far."""
    train_loss: FiniteOrNull
    valid_loss: FiniteOrNull
    valid_accuracy: FiniteOrNull
    valid_auc: FiniteOrNull
    seconds: float
    images_per_second: float


class ReportContent(Record):
    """The content of report.json."""

    schema_version: int = SCHEMA_VERSION
    run: str
    published: bool
    """Whether a published model was scored on other patches than its run's."""
    headline_split: str
    """The split of the first figures: test where there is one."""
    operating_point: str
    """The configured operating point."""
    calibration: Calibration
    split: SplitSummary
    splits: dict[str, SplitReport]
    """By split: valid, test; or new, for patches of another source."""
    tta_gain: dict[str, Difference]
    """By split: the mean over 8 views minus one view."""
    heat_in_centre: HeatInCentre | None
    unlabelled: int
    """Unlabelled patches, which submission.csv predicts."""
    pack: PackSummary
    lr_finder: dict[StageName, LrFinderSummary]
    """By stage; a stage whose learning rate was given has none."""
    epochs: list[EpochMetrics]
    cost: dict[str, float | int | str]
    """Name with unit to value, as in "scoring, seconds"."""
    config: dict[str, Any]
    versions: dict[str, str]
    initial_weights: str = ""
    """The weights that training began with, with their licence where it is known; empty: not recorded."""


def json_schema() -> str:
    """The JSON schema of report.json, as `docs/report.schema.json` holds it."""
    schema = ReportContent.model_json_schema(mode="serialization")
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
