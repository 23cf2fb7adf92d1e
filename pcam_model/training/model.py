"""The model that is published: `model.safetensors` and the `model.json` that says how to use it."""

import importlib.metadata
import platform
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pcam_model import __version__
from pcam_model.data.batches import IMAGENET_MEAN, IMAGENET_STD
from pcam_model.errors import BadModel
from pcam_model.files import write_whole
from pcam_model.records import Record
from pcam_model.training.checkpoint import Checkpoint, load_weights
from pcam_model.training.device import best_device, describe
from pcam_model.training.network import Name, PatchNetwork

WEIGHTS, ABOUT = "model.safetensors", "model.json"
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "safetensors", "prefect")


class Model(Record):
    """How a model is used, and where it comes from."""

    folder: str = ""
    """Where its files lie on this machine."""
    run: str
    architecture: Name
    size: int
    """The side of the images that the network sees, in pixels."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
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
    pack: str
    """Digest of the patches that it was trained on."""
    archive: str = ""
    """SHA-256 of the archive that they came from."""
    split: str
    """What a figure on its split means."""
    plan: dict[str, Any]
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """This code, Python, the packages that matter and the device."""
    found = {"pcam": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "device": describe(best_device())}


def save_model(folder: Path, checkpoint: Checkpoint, model: Model) -> Model:
    """Lay the model's two files into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(checkpoint.path, folder / WEIGHTS)
    write_whole(folder / ABOUT, model.model_dump_json(indent=1, exclude={"folder"}).encode())
    return model.model_copy(update={"folder": str(folder)})


def load_model(folder: Path) -> tuple[PatchNetwork, Model]:
    """A model's network, ready to predict, and what is said of it.

    Raises:
        BadModel: a file is missing or damaged.
    """
    try:
        model = Model.model_validate_json((folder / ABOUT).read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BadModel(f"{folder} holds no model ({ABOUT}: {reason}); give a run, or a folder with {ABOUT}") from error
    network = PatchNetwork(model.architecture)
    load_weights(folder / WEIGHTS, network)
    return network.to(best_device()).eval(), model.model_copy(update={"folder": str(folder)})
