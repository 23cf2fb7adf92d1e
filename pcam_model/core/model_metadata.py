"""What is published as a model: its files, and the record that says how to use them. Needs no torch."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pcam_model.core.errors import ModelError
from pcam_model.core.files import sha256
from pcam_model.core.schema import Record

WEIGHTS, ABOUT, GRAPH = "model.safetensors", "model.json", "model.onnx"


class Model(Record):
    """How a model is used, and where it comes from."""

    folder: str = ""
    """Where its files lie on this machine."""
    run: str
    architecture: str
    size: int
    """The side of the images that the network sees, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, str] = ("no tumour in the centre", "tumour in the centre")
    tta: bool = False
    """Whether its logits are means over the 8 symmetries of a patch."""
    temperature: float = 1.0
    """What logits are divided by before they become probabilities."""
    threshold: float = 0.5
    """The calibrated probability from which a patch is called tumour."""
    operating_point: str = "0.5"
    """How the threshold was chosen."""
    thresholds: dict[str, float] = {}
    """Those of the other operating points."""
    stage: str
    """The stage of training that made it."""
    weights: str
    """SHA-256 of model.safetensors."""
    graph: str = ""
    """SHA-256 of model.onnx; empty where there is none."""
    pack: str
    """Digest of the patches that it was trained on."""
    archive: str = ""
    """SHA-256 of the archive that they came from."""
    split: str
    """What a figure on its split means."""
    config: dict[str, Any]
    versions: dict[str, str]

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits (N, 2) -> calibrated probabilities (N,) of tumour. Raises ModelError where a logit is no number."""
        if not np.isfinite(logits).all():
            raise ModelError(f"the model of run {self.run} gives logits that are no numbers; do not use it")
        odds = (logits[:, 1].astype(np.float64) - logits[:, 0]) / self.temperature
        said: NDArray[np.float64] = np.exp(-np.logaddexp(0, -odds))
        return said


def read_model(folder: Path, *files: str) -> Model:
    """What a folder's model.json says; of `files` (WEIGHTS, GRAPH) it is checked that they are the ones it means.

    Raises:
        ModelError: the folder holds no model, or a file is missing or is another.
    """
    try:
        model = Model.model_validate_json((folder / ABOUT).read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{folder} holds no model ({ABOUT}: {reason}); give a run, or a folder with {ABOUT}"
        ) from error
    for file in files:
        expected = model.weights if file == WEIGHTS else model.graph
        if not expected:
            raise ModelError(f"the model of run {model.run} was published without {file}; use its other form")
        if not (folder / file).is_file():
            raise ModelError(f"{folder} has no {file}; pull the model again")
        if sha256(folder / file) != expected:
            raise ModelError(f"{folder / file} is damaged: its SHA-256 is not the one in {ABOUT}; pull the model again")
    return model.model_copy(update={"folder": str(folder)})
