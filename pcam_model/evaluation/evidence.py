"""What scoring is asked, what it rests on, and what it makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import field_validator

from pcam_model.core.errors import ConfigError
from pcam_model.core.schema import Config, Record
from pcam_model.evaluation import operating_points as operating

ELSEWHERE = "elsewhere"  # the kind of a split that none is: all patches are scored


class ScoreConfig(Config):
    """How a model is scored."""

    tta: bool = True
    """Average the network's output over the 8 symmetries of the square: better figures, 8 times the time to score."""
    operating_point: str = "0.5"
    """Probability from which a patch is called tumour: a number, or youden, sensitivity95 or specificity95, which are
    chosen on the validation part and reported on the test part."""

    @field_validator("operating_point", mode="before")
    @classmethod
    def _known(cls, value: object) -> str:
        try:
            operating.fixed(str(value))
        except ConfigError as error:  # pydantic gathers a ValueError with all else that is wrong with a config
            raise ValueError(str(error)) from error
        return str(value)


class Figure(Record):
    """One figure, with its 95 % interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Example:
    """A patch with what the network looked at; `heatmap.examples` makes them.

    Attributes:
        group: why it is shown, in human words.
        id: the patch.
        slide: its slide, "" where unknown.
        label: what it is, 0 or 1.
        predicted: what the network calls it, 0 or 1; the heat explains this class.
        probability: of tumour.
        patch: uint8 (96, 96, 3).
        heat: float (96, 96) in 0..1, or None where nothing in the patch speaks for the predicted class.
    """

    group: str
    id: str
    slide: str
    label: int
    predict_rows: int
    probability: float
    patch: NDArray[np.uint8]
    heat: NDArray[np.float32] | None


class Report(Record):
    """What the scoring step wrote."""

    folder: str
    """Where the files lie."""
    figures: dict[str, dict[str, Figure]]
    """Side (valid, test) to figure's name to figure."""
    files: list[str]
    """Names of the files, relative to the folder."""
    headline: str = ""
    """The side that the first figures are of: test where there is one."""
    temperature: float = 1.0
    """What log odds are divided by, as chosen on the validation part; goes with the model."""
    thresholds: dict[str, float] = {}
    """Operating point to the calibrated probability from which a patch is called tumour; goes with the model."""
    operating_point: str = "0.5"
    """The config's own: one of the keys of `thresholds`."""


class LrCurve(TypedDict):
    """One LR search, as it is drawn."""

    lrs: Sequence[float]
    losses: Sequence[float]
    """Smoothed, one a rate."""
    suggestion: float | None
    method: str
    """valley, steep, minimum or given."""
    lr: float
    """The rate that training took."""


@dataclass(frozen=True)
class Evidence:
    """Everything that a report tells, gathered by the run."""

    run: str
    config: Mapping[str, Any]
    pack: Mapping[str, Any]
    """The fields of the record `Pack`."""
    split: Mapping[str, Any]
    """The fields of the record `Split`: kind, counts, meaning."""
    predictions: Mapping[str, pd.DataFrame]
    """Side (valid, and test where there is one) to a table id, slide, label, logit0, logit1."""
    history: Sequence[Mapping[str, Any]] = ()
    """The lines of metrics.jsonl, in the order of writing."""
    lr_curves: Mapping[str, LrCurve] = field(default_factory=dict)
    """Stage (frozen, finetune) to its LR search; a stage whose rate was given has none."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    versions: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    """Name to figure in human words or numbers: seconds, images per second, device."""
    chosen: Mapping[str, Any] | None = None
    """`temperature` and `thresholds` that came with a published model; without them the validation part chooses."""
    examples: Sequence[Example] = ()
    """Patches to show, with heatmaps."""
    single_view: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """With `score.tta`: the same predictions without it, for its gain."""
    unlabelled: pd.DataFrame | None = None
    """The same of the source's unlabelled test patches, in the order of a submission; their label is NA."""
    pointing: Mapping[str, Any] | None = None
    """How much of the heat lies inside the decisive centre; `examples.pointing` measures it."""
    seed: int = 2
    """Of the bootstrap and of the cross-fitting."""
