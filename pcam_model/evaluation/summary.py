"""All that a report says, as plain values: what `metrics.json`, `report.json` and the page are made of."""

from typing import Any

import numpy as np
import pandas as pd

from pcam_model.evaluation import calibration, compare, metrics
from pcam_model.evaluation.bootstrap import GRID
from pcam_model.evaluation.cross_fit import ChosenThresholds, JudgedSplit, judge_splits
from pcam_model.evaluation.evidence import Evidence, Figure
from pcam_model.evaluation.intervals import IntervalEstimates, measure

FORMAT = 1


def summarise(evidence: Evidence) -> tuple[dict[str, Any], dict[str, JudgedSplit]]:
    """Everything that can be said from the evidence, and the judged sides it was said of.

    Raises:
        SplitError: a side holds one class only.
        ModelError: an output is not finite.
    """
    chosen, judged = judge_splits(evidence)
    sides = {name: _side(side, measure(side.scored, evidence.seed), chosen, evidence.score.operating_point)
             for name, side in judged.items()}  # fmt: skip
    content = {
        "format": FORMAT,
        "run": evidence.run,
        "published": evidence.chosen is not None,
        "headline": "test" if "test" in sides else next(iter(sides)),
        "operating_point": evidence.score.operating_point,
        "chosen": {"temperature": chosen.temperature, "thresholds": chosen.thresholds, "method": chosen.how},
        "split": dict(evidence.split),
        "sides": sides,
        "tta": {name: _gain(judged[name].table, table, evidence.seed) for name, table in evidence.single_view.items()},
        "pointing": dict(evidence.pointing) if evidence.pointing else None,
        "unlabelled": 0 if evidence.unlabelled is None else len(evidence.unlabelled),
        "pack": dict(evidence.pack),
        "lr": {stage: {name: curve[name] for name in ("suggestion", "method", "lr")}
               for stage, curve in evidence.lr_curves.items()},
        "epochs": [dict(line) for line in evidence.history if line["kind"] == "epoch"],
        "cost": dict(evidence.cost),
        "config": dict(evidence.config),
        "versions": dict(evidence.versions),
    }  # fmt: skip
    return content, judged


def _side(side: JudgedSplit, measured: IntervalEstimates, chosen: ChosenThresholds, wanted: str) -> dict[str, Any]:
    scored = side.scored
    own = wanted if wanted in scored.called else next(iter(scored.called))
    free = {name: figure.model_dump() for name, figure in measured.points[""].items()}
    points = {point: _point(point, side, measured, chosen) for point in scored.called}
    figures = {**points[own]["figures"], **free}
    return {
        "count": len(scored.labels),
        "tumour": int(scored.labels.sum()),
        "intervals": {"unit": scored.units.kind, "units": scored.units.count, "resamples": measured.resamples},
        "method": side.how,
        "operating_point": own,
        "threshold": chosen.thresholds.get(own, 0.5),
        "figures": {name: figures[name] for name in metrics.NAMES if name in figures},
        "uncalibrated": {name: free[f"{name}_raw"] for name in metrics.BETTER_WHEN_LOW},
        "confusion": points[own]["confusion"],
        "points": points,
        "reliability": {name: values.tolist() for name, values in
                        calibration.reliability(scored.labels, scored.probability).items()},
        "curves": {"grid": GRID.tolist(), **{name: band.tolist() for name, band in measured.bands.items()}},
        "slides": by_slide(side.table, scored.probability, scored.called[own]),
    }  # fmt: skip


def _point(point: str, side: JudgedSplit, measured: IntervalEstimates, chosen: ChosenThresholds) -> dict[str, Any]:
    cells = metrics.cells(side.scored.labels, side.scored.called[point]).sum(axis=0)
    return {
        "threshold": chosen.thresholds.get(point, 0.5),
        "confusion": metrics.Confusion(*(int(cell) for cell in cells))._asdict(),
        "figures": {name: figure.model_dump() for name, figure in measured.points[point].items()},
    }


def by_slide(table: pd.DataFrame, probability: metrics.Array, called: metrics.Array) -> list[dict[str, Any]]:
    """Patches, tumour share, accuracy and AUC (None on one class) of each known slide, the worst first."""
    known = table.assign(probability=probability, right=called == table["label"].to_numpy(bool))
    rows = []
    for slide, part in known[known["slide"].notna() & (known["slide"] != "")].groupby("slide"):
        both = part["label"].nunique() == 2
        rows.append({
            "slide": str(slide), "patches": len(part), "tumour": int(part["label"].sum()),
            "accuracy": float(part["right"].mean()), "probability": float(part["probability"].mean()),
            "auc": metrics.auc(part["label"].to_numpy(int), part["probability"].to_numpy()) if both else None,
        })  # fmt: skip
    return sorted(rows, key=lambda row: (row["accuracy"], row["slide"]))


def _gain(table: pd.DataFrame, single: pd.DataFrame, seed: int) -> dict[str, Any]:
    """What the average over 8 views brought over one, as the difference in AUC."""
    return compare.auc_difference({"one view": single, "8 views": table}, seed).model_dump()


def figure_of(content: dict[str, Any], side: str) -> dict[str, Figure]:
    """The figures of a side as records."""
    return {name: Figure(**figure) for name, figure in content["sides"][side]["figures"].items()}


def finite(value: Any) -> Any:
    """What any JSON reader accepts: NaN and infinity become null, numpy's numbers plain ones."""
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
