"""Score a run: figures, pictures, the page, the model card and the predictions."""

import json
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from pcam_model.core.errors import SplitError
from pcam_model.core.files import disk_space_guard, write_atomic
from pcam_model.evaluation import curves, metrics, page, plots, style
from pcam_model.evaluation import examples_sheet as contact
from pcam_model.evaluation import text as words
from pcam_model.evaluation.cross_fit import JudgedSplit
from pcam_model.evaluation.evidence import Evidence, Example, Figure, LrCurve, Report, ScoreConfig
from pcam_model.evaluation.metrics import Confusion
from pcam_model.evaluation.summary import figure_of, finite, summarise

__all__ = ["Evidence", "Example", "Figure", "LrCurve", "Report", "ScoreConfig", "write_report"]

SHORT = ("format", "run", "published", "headline", "operating_point", "chosen", "split", "tta", "sides")
LONG = ("curves", "reliability", "slides")


def write_report(folder: Path, evidence: Evidence) -> Report:
    """Everything that can be told of a run, written into the folder.

    `report.html` (needs nothing else), `report.json` (the same), `metrics.json` (its figures), `MODEL_CARD.md`,
    `predictions.parquet` (id, side, slide, label, logit0, logit1, logit, probability, called, pixels), pictures as PNG,
    and `submission.csv` where the source has unlabelled test patches.

    Raises:
        SplitError: a side that is scored holds one class only, or there is no side at all.
        ModelError: the network's output is not finite.
        DiskFullError: there is no room for the files.
    """
    if not evidence.predictions:
        raise SplitError("There is no validation and no test part, expected at least one; give split.valid above 0")
    content, judged = summarise(evidence)
    content = finite(content)
    files = _texts(content, evidence)
    if evidence.unlabelled is not None:
        files["submission.csv"] = submission(evidence.unlabelled, content["chosen"]["temperature"])
    files |= {"predictions.parquet": _predictions(judged), **_pictures(content, evidence)}
    with disk_space_guard(folder):
        for name, made in files.items():
            write_atomic(folder / name, made)
    return Report(
        folder=str(folder),
        figures={side: figure_of(content, side) for side in content["sides"]},
        files=list(files),
        headline=content["headline"],
        temperature=content["chosen"]["temperature"],
        thresholds=content["chosen"]["thresholds"],
        operating_point=content["sides"][content["headline"]]["operating_point"],
    )


def _texts(content: dict[str, Any], evidence: Evidence) -> dict[str, bytes]:
    short = {name: content[name] for name in SHORT}
    short["sides"] = {name: {key: value for key, value in side.items() if key not in LONG}
                      for name, side in content["sides"].items()}  # fmt: skip
    return {
        "metrics.json": as_json(short),
        "report.json": as_json(content),
        "report.html": page.report_page(content, evidence),
        "MODEL_CARD.md": page.model_card(content),
    }


def submission(unlabelled: pd.DataFrame, temperature: float) -> bytes:
    """Kaggle's form, id,label, in the order of the table; the label is the calibrated probability of tumour."""
    odds = metrics.margin(unlabelled[["logit0", "logit1"]].to_numpy()) / temperature
    lines = pd.DataFrame({"id": unlabelled["id"].to_numpy(), "label": metrics.sigmoid(odds)})
    return lines.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()


def _predictions(judged: Mapping[str, JudgedSplit]) -> bytes:
    parts = []
    for name, side in judged.items():
        scored = side.scored
        own = next(iter(scored.called))
        parts.append(side.table.assign(
            side=name, logit=scored.odds, probability=scored.probability, called=scored.called[own].astype("int8"),
            slide=side.table["slide"].astype("string"), label=side.table["label"].astype("int8"),
        ))  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    columns = ["id", "side", "slide", "label", "logit0", "logit1", "logit", "probability", "called", "pixels"]
    content = BytesIO()
    table[[column for column in columns if column in table]].to_parquet(content, index=False)
    return content.getvalue()


def _pictures(content: dict[str, Any], evidence: Evidence) -> dict[str, bytes]:
    sides = content["sides"]
    matrices = {f"{words.SIDE.get(name, name)}, {words.point(side['operating_point'])}": Confusion(**side["confusion"])
                for name, side in sides.items()}  # fmt: skip
    made = {"examples.png": contact.sheet(evidence.examples)} if evidence.examples else {}
    return made | {
        "lr.png": style.picture(partial(plots.lr_curves, curves=evidence.lr_curves), 7, 2.9),
        "losses.png": style.picture(partial(plots.losses, history=evidence.history), 7, 4.2),
        "confusion.png": style.picture(partial(plots.confusions, cells=matrices), 3.2 * len(matrices), 3.2),
        "roc.png": style.picture(partial(curves.roc, sides=sides), 3.5, 3.4),
        "pr.png": style.picture(partial(curves.precision_recall, sides=sides), 3.5, 3.4),
        "reliability.png": style.picture(partial(curves.reliability, sides=sides), 3.5, 3.8),
    }


def as_json(content: Any) -> bytes:
    """JSON that any reader accepts: what is no number becomes null."""
    return json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False).encode()
