"""The network of a model that is published: written, and read back."""

import hashlib
import importlib.metadata
import platform
import shutil
from functools import cache
from pathlib import Path

import torch

from pcam_model import __version__
from pcam_model.core.errors import ModelError
from pcam_model.core.files import write_atomic
from pcam_model.core.model_metadata import ABOUT, WEIGHTS, Model, read_model
from pcam_model.training.checkpoint import Checkpoint, load_weights
from pcam_model.training.device import best_device, describe
from pcam_model.training.network import BODIES, PatchNetwork

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "safetensors", "prefect")


@cache
def code_digest() -> str:
    """SHA-256 over the project's three packages, as far as they are installed: what a result is a function of."""
    root, total = Path(__file__).parents[2], hashlib.sha256()
    for package in ("pcam_model", "tasks", "flows"):
        for path in sorted((root / package).rglob("*.py")):
            total.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return total.hexdigest()


def versions() -> dict[str, str]:
    """This code, Python, the packages that matter and the device."""
    found = {"pcam": __version__, "code": code_digest()[:12], "python": platform.python_version()}
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
    write_atomic(folder / ABOUT, model.model_dump_json(indent=1, exclude={"folder"}).encode())
    return model.model_copy(update={"folder": str(folder)})


def load_model(folder: Path) -> tuple[PatchNetwork, Model]:
    """A model's network, ready to predict, and what is said of it.

    Raises:
        ModelError: a file is missing or damaged, or it is of a network that this version does not know.
    """
    model = read_model(folder, WEIGHTS)
    if model.architecture not in BODIES:
        raise ModelError(f"{folder}: no network {model.architecture!r} is known here; use the pcam that trained it")
    network = PatchNetwork(model.architecture)
    load_weights(folder / WEIGHTS, network)
    return network.to(best_device()).to(memory_format=torch.channels_last).eval(), model
