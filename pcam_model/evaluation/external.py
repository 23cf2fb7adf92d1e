"""A published model on the labelled patches of another source: the evidence for its report."""

from pathlib import Path
from typing import Any

import numpy as np

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.core.log import log
from pcam_model.core.model_metadata import ModelMetadata
from pcam_model.core.pixel_size import MAX_MISMATCH, relative_difference
from pcam_model.data.pack import Pack, load_patches, load_table
from pcam_model.data.patch_loader import make_loader, on_device
from pcam_model.evaluation import metrics
from pcam_model.evaluation.evidence import EXTERNAL, Evidence, ScoreConfig, summarise_pack
from pcam_model.evaluation.examples import add_examples
from pcam_model.evaluation.logits import OnProgress
from pcam_model.evaluation.operating_points import fixed_threshold
from pcam_model.evaluation.predictions import predict_split
from pcam_model.evaluation.report_schema import Calibration, SplitSummary
from pcam_model.evaluation.summary import build_content
from pcam_model.training.device import best_device
from pcam_model.training.model_io import load_model, versions

NEW_SPLIT = "new"
NOTHING_CHOSEN = "nothing was chosen on these patches: temperature, thresholds and views are the model's own"
NO_QUANTILES = "the model was published without them"
TRAINED_ON = "optimistic: the model was trained on a part of this very source"


def score_external(
    folder: Path,
    pack: Pack,
    *,
    tta: bool | None = None,
    operating_point: str | None = None,
    explain: bool = False,
    on_progress: OnProgress | None = None,
) -> Evidence:
    """The predictions of the model in `folder` on all labelled patches of the pack, as evidence for a report.

    Args:
        folder: of the model.
        pack: the patches.
        tta: whether to average over the 8 symmetries; None: as the model does.
        operating_point: a number, or a rule whose threshold was published with the model; None: the model's own.
        explain: whether to make heatmaps.
        on_progress: called with (done, total) patches.

    Raises:
        SourceError: no labelled patch.
        SplitError: one class only.
        ModelError: the folder holds no complete model, or its output is not finite.
        ConfigError: no such operating point.
    """
    network, model = load_model(folder)
    _warn_of_mismatch(model, pack)
    score = ScoreConfig(tta=model.tta if tta is None else tta, operating_point=_point(operating_point, model))
    table = load_table(pack)
    rows = np.flatnonzero(table["label"].notna())
    if not len(rows):
        raise SourceError(f"{pack.source} has no labelled patch, so there is nothing to compare with; use pcam predict")
    labels = metrics.validate_labels(table["label"].iloc[rows].to_numpy(np.int64), pack.source)
    device, patches = best_device(), load_patches(pack)
    loader = make_loader(on_device(patches, device), rows, labels, model.image_size, device)
    evidence = Evidence(
        run=model.run,
        config=model.config,
        pack=summarise_pack(pack),
        split=_split_summary(model, pack, labels),
        predictions={NEW_SPLIT: predict_split(network, loader, table, rows, score.tta, on_progress)},
        score=score,
        versions=versions(),
        initial_weights=model.initial_weights,
        calibration=Calibration(
            temperature=model.temperature,
            bias=model.bias,
            prevalence=model.prevalence,
            thresholds=model.thresholds,
            conformal=model.conformal,
            conformal_method="calibrated when the model was trained" if model.conformal else NO_QUANTILES,
        ),
    )
    return add_examples(evidence, network, model.image_size, patches) if explain else evidence


def _warn_of_mismatch(model: ModelMetadata, pack: Pack) -> None:
    if not pack.mpp_assumed and relative_difference(pack.mpp, model.mpp) > MAX_MISMATCH:
        log.warning("The patches of %s have %g microns per pixel, those that the model was trained on %g: figures may "
                    "be low", pack.source, pack.mpp, model.mpp)  # fmt: skip


def _point(point: str | None, model: ModelMetadata) -> str:
    """The operating point, the model's own by default. Raises ConfigError where the model has no threshold for it."""
    point = point or model.operating_point
    if fixed_threshold(point) is None and point not in model.thresholds:
        raise ConfigError(f"The model {model.run} has no threshold for {point}, give a probability between 0 and 1")
    return point


def _split_summary(model: ModelMetadata, pack: Pack, labels: metrics.Array) -> SplitSummary:
    trained_on = model.pack_digest == pack.digest or (model.archive_sha256 and model.archive_sha256 == pack.archive)
    counts = {str(label): int((labels == label).sum()) for label in (0, 1)}
    return SplitSummary(kind=EXTERNAL, counts={NEW_SPLIT: counts}, meaning=TRAINED_ON if trained_on else NOTHING_CHOSEN)


def score_summary(evidence: Evidence) -> dict[str, Any]:
    """The metrics of `score_external`'s evidence with their intervals, as `pcam score --json` prints them."""
    content = build_content(evidence)[0].model_dump(mode="json")
    split = content["splits"][NEW_SPLIT]
    return {
        "model": evidence.run,
        "source": evidence.pack.source,
        "patches": split["patches"],
        "tumour": split["tumour"],
        "meaning": evidence.split.meaning,
        "tta": evidence.score.tta,
        "temperature": content["calibration"]["temperature"],
        "operating_point": split["operating_point"],
        "threshold": split["threshold"],
        "figures": {name: figure["value"] for name, figure in split["figures"].items()},
        "intervals": {name: [figure["low"], figure["high"]] for name, figure in split["figures"].items()},
        "intervals_unit": split["intervals"],
        "uncalibrated": {name: figure["value"] for name, figure in split["uncalibrated"].items()},
        "confusion": split["confusion"],
        "operating_points": split["operating_points"],
        "domains": split["domains"],
        "abstention": split["abstention"],
        "tta_gain": content["tta_gain"].get(NEW_SPLIT),
    }
