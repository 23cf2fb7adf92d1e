"""Published models: saving and loading the network, and the versions that made it."""

import hashlib
import importlib.metadata
import platform
import shutil
from functools import cache
from pathlib import Path

import torch

from pcam_model.core.errors import CheckpointError, ConfigError, ModelError
from pcam_model.core.files import write_atomic
from pcam_model.core.model_metadata import METADATA_FILE, WEIGHTS_FILE, ModelMetadata, read_metadata
from pcam_model.training.checkpoint import Checkpoint, load_weights
from pcam_model.training.device import best_device, describe_device, set_float32_precision
from pcam_model.training.network import BODIES, PatchNetwork
from pcam_model.training.timm_body import is_timm

PACKAGES = ("pcam", "torch", "torchvision", "numpy", "pandas", "scikit-learn", "safetensors", "timm", "prefect")


@cache
def code_digest() -> str:
    """SHA-256 over the source of the packages pcam_model, tasks and flows, as far as they are installed."""
    root, total = Path(__file__).parents[2], hashlib.sha256()
    for package in ("pcam_model", "tasks", "flows"):
        for path in sorted((root / package).rglob("*.py")):
            total.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return total.hexdigest()


def versions() -> dict[str, str]:
    """Versions of pcam, its code, Python and the main packages, and the device."""
    packages = {"code": code_digest()[:12], "python": platform.python_version()}
    for package in ("pcam", *PACKAGES):
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**packages, "device": describe_device(best_device())}


def save_model(folder: Path, checkpoint: Checkpoint, model: ModelMetadata) -> ModelMetadata:
    """Write the weights and the metadata of a model into a folder; returns the metadata with the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(checkpoint.path, folder / WEIGHTS_FILE)
    write_atomic(folder / METADATA_FILE, model.model_dump_json(indent=1, exclude={"folder"}).encode())
    return model.model_copy(update={"folder": str(folder)})


def load_model(folder: Path) -> tuple[PatchNetwork, ModelMetadata]:
    """The network of a model, on the best device in evaluation mode, and its metadata.

    Raises:
        ModelError: a file is missing or damaged, or it is of a network that this version does not know.
        MissingPackageError: its network is timm's, and timm is not installed.
    """
    model = read_metadata(folder, WEIGHTS_FILE)
    if model.arch not in BODIES and not is_timm(model.arch):
        raise ModelError(f"{folder}: no network {model.arch!r} is known here; use the pcam that trained it")
    set_float32_precision()
    try:
        network = PatchNetwork(model.arch, model.image_size)
        load_weights(folder / WEIGHTS_FILE, network)
    except CheckpointError as error:
        raise ModelError(str(error)) from error
    except ConfigError as error:
        raise ModelError(f"{folder}: {error}; the model needs timm {model.versions.get('timm')}") from error
    return network.to(best_device()).to(memory_format=torch.channels_last).eval(), model
