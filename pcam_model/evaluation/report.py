"""Score a run: figures, pictures and their files."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

from pcam_model.errors import BadSplit
from pcam_model.evaluation import metrics, operating, plots, style
from pcam_model.evaluation.evidence import Evidence, Figure, LrCurve, Report, ScorePlan
from pcam_model.evaluation.metrics import Confusion
from pcam_model.files import room_on_disk, write_whole

__all__ = ["Evidence", "Figure", "LrCurve", "Report", "ScorePlan", "write_report"]

SIDE = {"valid": "Validation", "test": "Test", "train": "Training"}


def write_report(folder: Path, evidence: Evidence) -> Report:
    """Figures and pictures of a run, written into the folder: metrics.json, lr.png, losses.png, confusion.png.

    Raises:
        BadSplit: a side that is scored holds one class only, or there is no side at all.
        BadModel: the network's output is not finite.
        DiskFull: there is no room for the files.
    """
    if not evidence.predictions:
        raise BadSplit("There is no validation and no test part, expected at least one; give split.valid above 0")
    sides = _score(evidence)
    with room_on_disk(folder):
        files = _write(folder, evidence, sides)
    figures = {side: {name: Figure(value=value) for name, value in scored["figures"].items()}
               for side, scored in sides.items()}  # fmt: skip
    return Report(folder=str(folder), figures=figures, files=[file.name for file in files])


def _score(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Side to its figures at the threshold that may be used there."""
    sides = {}
    for side, table in evidence.predictions.items():
        labels = metrics.checked_labels(table["label"].to_numpy(), side)
        logits = table[["logit0", "logit1"]].to_numpy(float)
        threshold = _threshold(side, evidence)
        cells = metrics.confusion(labels, metrics.tumour_probability(logits), threshold)
        figures = metrics.figures(labels, logits, threshold)
        sides[side] = {"count": len(labels), "threshold": threshold, "figures": figures, "confusion": cells._asdict()}
    return sides


def _threshold(side: str, evidence: Evidence) -> float:
    """The plan's operating point; one that is chosen from the validation part is never used to report that part."""
    point, valid = evidence.score.operating_point, evidence.predictions.get("valid")
    threshold = operating.fixed(point)
    if threshold is None and side != "valid" and valid is not None:
        logits = valid[["logit0", "logit1"]].to_numpy(float)
        labels = metrics.checked_labels(valid["label"].to_numpy(), "valid")
        threshold = operating.choose(point, labels, metrics.tumour_probability(logits))
    return 0.5 if threshold is None else threshold


def _write(folder: Path, evidence: Evidence, sides: dict[str, dict[str, Any]]) -> list[Path]:
    matrices = {f"{SIDE.get(side, side)}, threshold {scored['threshold']:.3g}": Confusion(**scored["confusion"])
                for side, scored in sides.items()}  # fmt: skip
    content = {"run": evidence.run, "operating_point": evidence.score.operating_point, "split": dict(evidence.split),
               "sides": sides}  # fmt: skip
    return [
        write_whole(folder / "metrics.json", as_json(content)),
        style.save(folder / "lr.png", partial(plots.lr_curves, curves=evidence.lr_curves), 7, 2.9),
        style.save(folder / "losses.png", partial(plots.losses, history=evidence.history), 7, 4.2),
        style.save(folder / "confusion.png", partial(plots.confusions, cells=matrices), 3.2 * len(matrices), 3.2),
    ]


def as_json(content: Any) -> bytes:
    """JSON that any reader accepts: what is not a number becomes null."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
