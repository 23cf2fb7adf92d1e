"""The configuration, the inputs and the result of scoring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from pcam_model.core.conformal import ConformalQuantiles
from pcam_model.core.errors import ConfigError
from pcam_model.core.estimate import Estimate
from pcam_model.core.schema import Config, Record
from pcam_model.data.pack import Pack
from pcam_model.data.split import Split
from pcam_model.evaluation.operating_points import fixed_threshold
from pcam_model.evaluation.predictions import SplitPredictions
from pcam_model.evaluation.report_schema import Calibration, HeatInCentre, PackSummary, SplitSummary
from pcam_model.training.lr_curve import LrCurve

EXTERNAL = "external"  # the `kind` of patches that no split of the model's training divides
SCORING_SECONDS, SCORING_RATE = "scoring, seconds", "scoring, patches per second"  # keys of `Evidence.cost`


class ScoreConfig(Config):
    """How a model is scored."""

    tta: bool = True
    """Average the network's output over the 8 symmetries of the square: better figures, 8 times the time to score."""
    operating_point: str = "0.5"
    """Probability from which a patch is called tumour: a number, or youden, sensitivity95 or specificity95, which are
    chosen on the validation split and reported on the test split."""
    prevalence: float | None = Field(None, gt=0, lt=1)
    """Share of tumour among the patches that the model will be used on: probabilities are corrected for it, and
    thresholds, NLL, Brier score and ECE are for it. null: that of the validation split."""
    conformal_alpha: float = Field(0.1, gt=0, lt=0.5)
    """Share of the patches of each class that `decision` may get wrong; smaller means more `unsure` ones."""

    @field_validator("operating_point", mode="before")
    @classmethod
    def _known(cls, value: object) -> str:
        try:
            fixed_threshold(str(value))
        except ConfigError as error:  # pydantic gathers a ValueError with all else that is wrong with a config
            raise ValueError(str(error)) from error
        return str(value)


@dataclass(frozen=True)
class Example:
    """A patch with its heatmap.

    Attributes:
        group: why it is shown, for people.
        id: the patch.
        slide: its slide, "" where unknown.
        label: the true class, 0 or 1.
        predicted: the predicted class, 0 or 1; the heat explains this one.
        probability: the calibrated probability of tumour.
        patch: uint8 (96, 96, 3).
        heat: float (96, 96) in 0..1, or None where nothing in the patch speaks for the predicted class.
    """

    group: str
    id: str
    slide: str
    label: int
    predicted: int
    probability: float
    patch: NDArray[np.uint8]
    heat: NDArray[np.float32] | None


class Report(Record):
    """The files that the scoring step wrote, and what the model takes from it."""

    folder: str
    """The folder of the files."""
    figures: dict[str, dict[str, Estimate]]
    """Split (valid, test) to metric to value and interval."""
    files: list[str]
    """Names of the files, relative to the folder."""
    headline_split: str = ""
    """The split of the first figures: test where there is one."""
    temperature: float = 1.0
    """Log odds are divided by it; chosen on the validation split, published with the model."""
    bias: float = 0.0
    """Added to the log odds after that; published with the model."""
    thresholds: dict[str, float] = Field(default_factory=dict)
    """Operating point to the calibrated probability from which a patch is called tumour; published with the model."""
    operating_point: str = "0.5"
    """The configured one: a key of `thresholds`."""
    conformal: ConformalQuantiles | None = None
    """Calibrated on the validation split, published with the model; None where it has too few slides or patches."""


@dataclass(frozen=True)
class Evidence:
    """Everything that a report is made of."""

    run: str
    config: Mapping[str, Any]
    pack: PackSummary
    split: SplitSummary
    predictions: Mapping[str, SplitPredictions]
    """By split: valid, and test where there is one; or new, for patches of another source."""
    unlabelled: SplitPredictions | None = None
    """Of the source's unlabelled test patches, in the order of a submission; their label is NA."""
    history: Sequence[Mapping[str, Any]] = ()
    """The rows of metrics.jsonl, in the order of writing."""
    lr_curves: Mapping[str, LrCurve] = field(default_factory=dict)
    """Stage (frozen, finetune) to its LR range test; a stage whose learning rate was given has none."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    versions: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, float | int | str] = field(default_factory=dict)
    """Name with unit to value: seconds, images per second, device."""
    calibration: Calibration | None = None
    """Of a published model; without it temperature and thresholds are chosen on the validation split."""
    examples: Sequence[Example] = ()
    """Patches to show, with heatmaps."""
    heat_in_centre: HeatInCentre | None = None
    initial_weights: str = ""
    """The weights that training began with, with their licence where it is known."""
    seed: int = 2
    """Of the bootstrap and of the cross-fitting."""


def summarise_pack(pack: Pack) -> PackSummary:
    """The pack's record without its folder."""
    return PackSummary.model_validate(pack.model_dump(exclude={"folder"}))


def summarise_split(split: Split) -> SplitSummary:
    """The split's record without its path."""
    return SplitSummary.model_validate(split.model_dump(exclude={"path"}))
