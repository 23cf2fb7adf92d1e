"""A published model on a labelled source: the evidence of what it reaches there."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.core.model_metadata import Model
from pcam_model.data.pack import Pack, patches, table
from pcam_model.data.patch_loader import batches, on_device
from pcam_model.evaluation import metrics
from pcam_model.evaluation import operating_points as operating
from pcam_model.evaluation.evidence import ELSEWHERE, Evidence, ScoreConfig
from pcam_model.evaluation.examples import explained
from pcam_model.evaluation.forward import as_table, forward
from pcam_model.evaluation.summary import finite, summarise
from pcam_model.training.device import best_device
from pcam_model.training.model_io import load_model, versions

SIDE = "new"
NOTHING_CHOSEN = "nothing was chosen on these patches: temperature, thresholds and views are the model's own"
TRAINED_ON = "optimistic: the model was trained on a part of this very source"


def score_external(
    folder: Path,
    pack: Pack,
    *,
    tta: bool | None = None,
    operating_point: str | None = None,
    explain: bool = False,
    tell: Callable[[int, int], None] | None = None,
) -> Evidence:
    """What the model in `folder` says of all labelled patches of the pack, ready for a summary or a report.

    Args:
        folder: of the model.
        pack: the patches.
        tta: whether to average over the 8 symmetries; None: as the model does.
        operating_point: a number, or one of those that were chosen with the model; None: the model's own.
        explain: whether to make heatmaps.
        tell: is told (done, total) patches.

    Raises:
        SourceError: no labelled patch.
        SplitError: one class only.
        ModelError: the folder holds no whole model, or its output is not finite.
        ConfigError: no such operating point.
    """
    network, model = load_model(folder)
    score = ScoreConfig(tta=model.tta if tta is None else tta, operating_point=_known(operating_point, model))
    people = table(pack)
    rows = np.flatnonzero(people["label"].notna())
    if not len(rows):
        raise SourceError(f"{pack.source} has no labelled patch, so there is nothing to compare with; use pcam predict")
    labels = metrics.checked_labels(people["label"].iloc[rows].to_numpy(np.int64), pack.source)
    device = best_device()
    part = batches(on_device(patches(pack), device), rows, labels, model.size, device)
    single, mean = forward(network, part, score.tta, tell)
    evidence = Evidence(
        run=model.run,
        config=model.config,
        pack=pack.model_dump(mode="json", exclude={"folder"}),
        split=_split(model, pack, labels),
        predictions={SIDE: as_table(people, rows, mean)},
        single_view={SIDE: as_table(people, rows, single)} if score.tta else {},
        score=score,
        versions=versions(),
        chosen={"temperature": model.temperature, "thresholds": model.thresholds},
    )
    if not explain:
        return evidence
    shown = explained(evidence, network, model.size, patches(pack), rows)
    return dataclasses.replace(evidence, examples=shown[0], pointing=shown[1])


def _known(point: str | None, model: Model) -> str:
    point = point or model.operating_point
    if operating.fixed(point) is None and point not in model.thresholds:
        raise ConfigError(f"The model {model.run} has no threshold for {point}, give a probability between 0 and 1")
    return point


def _split(model: Model, pack: Pack, labels: metrics.Array) -> dict[str, object]:
    trained_on = model.pack == pack.digest or (model.archive and model.archive == pack.archive)
    counts = {str(each): int((labels == each).sum()) for each in (0, 1)}
    return {
        "kind": ELSEWHERE,
        "counts": {SIDE: counts},
        "meaning": TRAINED_ON if trained_on else NOTHING_CHOSEN,
    }


def in_short(evidence: Evidence) -> dict[str, Any]:
    """The figures of such evidence, with their intervals, as a program wants them."""
    content = finite(summarise(evidence)[0])
    side = content["sides"][SIDE]
    return {
        "model": evidence.run,
        "source": content["pack"]["source"],
        "patches": side["count"],
        "tumour": side["tumour"],
        "meaning": content["split"]["meaning"],
        "tta": evidence.score.tta,
        "temperature": content["chosen"]["temperature"],
        "operating_point": side["operating_point"],
        "threshold": side["threshold"],
        "figures": {name: figure["value"] for name, figure in side["figures"].items()},
        "intervals": {name: [figure["low"], figure["high"]] for name, figure in side["figures"].items()},
        "intervals_unit": side["intervals"],
        "uncalibrated": {name: figure["value"] for name, figure in side["uncalibrated"].items()},
        "confusion": side["confusion"],
        "points": side["points"],
        "gain_of_tta": content["tta"].get(SIDE),
    }
