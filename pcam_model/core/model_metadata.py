"""The metadata of a published model: which files it has, and how they are used. Needs no torch."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from pcam_model.core.conformal import ConformalQuantiles
from pcam_model.core.errors import ModelError
from pcam_model.core.files import sha256
from pcam_model.core.parsing import parse_record
from pcam_model.core.pixel_size import PCAM_MPP
from pcam_model.core.platt_scaling import PlattScaling
from pcam_model.core.schema import Record

WEIGHTS_FILE, METADATA_FILE, ONNX_FILE = "model.safetensors", "model.json", "model.onnx"
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 1024
Share = Annotated[float, Field(ge=0, le=1)]
PositiveStd = Annotated[float, Field(gt=0, le=10)]


class ModelMetadata(Record):
    """The content of model.json: how the model is used, and what it was trained on. Its numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)

    folder: str = ""
    """The folder of its files on this machine; not written."""
    run: str
    """The run that trained it."""
    arch: str
    image_size: int = Field(ge=MIN_IMAGE_SIZE, le=MAX_IMAGE_SIZE)
    """Height and width of the network's input, in pixels."""
    mpp: float = Field(PCAM_MPP, gt=0, le=20)
    """Microns per pixel of the 96x96 patches that it was trained on."""
    mpp_assumed: bool = True
    """Whether that is assumed: nobody said so of the patches."""
    mean: tuple[Share, Share, Share]
    """Of each channel, by which inputs are normalised."""
    std: tuple[PositiveStd, PositiveStd, PositiveStd]
    classes: tuple[str, str] = ("no tumour in the centre", "tumour in the centre")
    tta: bool = False
    """Whether its logits are means over the 8 symmetries of a patch."""
    temperature: float = Field(1.0, gt=0, le=1000)
    """Logits are divided by it before the softmax."""
    bias: float = Field(0.0, ge=-20, le=20)
    """Added to the log odds after that."""
    prevalence: float | None = Field(None, gt=0, lt=1)
    """The share of tumour that its probabilities are for; None: that of the validation split."""
    threshold: Share = 0.5
    """The calibrated probability from which a patch is called tumour."""
    operating_point: str = "0.5"
    """The rule that chose the threshold."""
    thresholds: dict[str, Share] = Field(default_factory=dict)
    """The thresholds of the other operating points."""
    conformal: ConformalQuantiles | None = None
    """Which patches are `unsure`; None: nothing to calibrate it on, too little, or published before there was any."""
    initial_weights: str = ""
    """The weights that its training began with, with their licence where it is known; empty: not recorded."""
    stage: str
    """The training stage that its weights come from."""
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of model.safetensors."""
    onnx_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    """SHA-256 of model.onnx; empty where there is none."""
    pack_digest: str
    """Digest of the pack that it was trained on."""
    archive_sha256: str = ""
    """SHA-256 of the archive that the pack was made from."""
    split: str
    """What figures on the run's split mean."""
    config: dict[str, Any]
    """The configuration that decided the result."""
    versions: dict[str, str]

    @property
    def scaling(self) -> PlattScaling:
        """What calibrates its log odds."""
        return PlattScaling(temperature=self.temperature, bias=self.bias)

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Calibrated probabilities (N,) of tumour, from logits (N, 2). Raises ModelError where one is not finite."""
        if not np.isfinite(logits).all():
            raise ModelError(f"the model of run {self.run} gives logits that are not finite; do not use it")
        return self.scaling.probability(logits[:, 1].astype(np.float64) - logits[:, 0])


def read_metadata(folder: Path, *files: str) -> ModelMetadata:
    """The metadata of the model in a folder; the SHA-256 of `files` (WEIGHTS_FILE, ONNX_FILE) is verified.

    Raises:
        ModelError: the folder holds no model, or a file is missing or damaged.
    """
    hint = f"give a run, or a folder with {METADATA_FILE}"
    try:
        content = (folder / METADATA_FILE).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder} holds no model ({METADATA_FILE}: {error.strerror}); {hint}") from error
    model = parse_record(ModelMetadata, content, folder / METADATA_FILE, remedy="do not use this model; pull it again")
    for file in files:
        _verify(model, folder, file)
    return model.model_copy(update={"folder": str(folder)})


def _verify(model: ModelMetadata, folder: Path, file: str) -> None:
    expected = model.weights_sha256 if file == WEIGHTS_FILE else model.onnx_sha256
    if not expected:
        raise ModelError(f"the model of run {model.run} was published without {file}; use its other form")
    if not (folder / file).is_file():
        raise ModelError(f"{folder} has no {file}; pull the model again")
    if sha256(folder / file) != expected:
        raise ModelError(
            f"{folder / file} is damaged: its SHA-256 is not the one in {METADATA_FILE}; pull the model again"
        )
