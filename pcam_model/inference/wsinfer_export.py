"""Export of a published model for WSInfer and its QuPath extension: config.json and torchscript_model.pt in a folder.

The schema of config.json is wsinfer-zoo's `model-config.schema.json`, version 1.0. Whoever loads the folder reads tiles
of 96 pixels at the model's scale, divides them by 255, runs the network and applies softmax.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pcam_model.core.errors import ModelError, SourceError
from pcam_model.core.files import write_atomic
from pcam_model.core.model_metadata import ModelMetadata
from pcam_model.core.schema import Record
from pcam_model.core.write_guard import write_guard
from pcam_model.data.image import PATCH_SIZE
from pcam_model.data.sample import SamplePatches
from pcam_model.evaluation.views import views
from pcam_model.inference.predictor import load
from pcam_model.registry.manifest import json_bytes
from pcam_model.training.model_io import load_model
from pcam_model.training.network import PatchNetwork

CONFIG_FILE, TORCHSCRIPT_FILE = "config.json", "torchscript_model.pt"
CLASS_NAMES = ("No tumor", "Tumor")
MAX_DIFFERENCE = 1e-4
COMPARED = 8
"""Patches on which the export is compared with the model."""


class WsinferExport(Record):
    """Folder, run and threshold of an export, and how far its probabilities are from the model's."""

    folder: str
    run: str
    tta: bool
    threshold: float
    """The model's operating point. Viewers call a tile by the larger class, that is from 0.5."""
    largest_difference: float
    """Of a probability to the model's own, on generated patches."""


class CalibratedNetwork(nn.Module):
    """Float (B, 3, 96, 96) in 0..1 -> (B, 2), whose softmax is the model's calibrated probabilities."""

    mean: Tensor
    std: Tensor
    bias: Tensor

    def __init__(self, network: PatchNetwork, model: ModelMetadata, tta: bool) -> None:
        super().__init__()
        self.body, self.head = network.body, network.head
        self.image_size, self.temperature, self.tta = model.image_size, model.temperature, tta
        # As buffers they follow the module to another device.
        self.register_buffer("mean", torch.tensor(model.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(model.std).view(3, 1, 1))
        self.register_buffer("bias", torch.tensor([0.0, model.bias]))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, divided by the temperature, the second plus the bias; with `tta` the mean over the 8 symmetries."""
        if self.image_size != PATCH_SIZE:
            size = (self.image_size, self.image_size)
            images = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        images = (images - self.mean) / self.std
        logits = [self.head(self.body(view)) for view in (views(images) if self.tta else [images])]
        return torch.stack(logits).mean(0) / self.temperature + self.bias


def export_wsinfer(folder: Path, target: Path, tta: bool | None = None) -> WsinferExport:
    """Write the model of a folder for WSInfer, and compare it with the model on generated patches.

    Args:
        folder: of a published model.
        target: a new or empty folder; viewers show its name as the model's.
        tta: whether logits are means over the 8 symmetries of a patch; by default as the model was calibrated.

    Raises:
        ModelError: the model is damaged, or the export's probabilities differ by more than 1e-4.
        SourceError: `target` holds something.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SourceError(f"{target} is not empty; expected a new or empty folder; choose another")
    network, model = load_model(folder)
    tta = model.tta if tta is None else tta
    torchscript = _trace(CalibratedNetwork(network.float().cpu(), model, tta).eval())
    difference = _difference(torchscript, folder, tta)
    if not difference <= MAX_DIFFERENCE:
        raise ModelError(
            f"the export's probabilities differ from the model's by {difference:.1e}, allowed is {MAX_DIFFERENCE:.0e}; "
            "nothing was written"
        )
    with write_guard(target):
        target.mkdir(parents=True, exist_ok=True)
        write_atomic(target / TORCHSCRIPT_FILE, torchscript)
        write_atomic(target / CONFIG_FILE, json_bytes(wsinfer_config(model)))
    return WsinferExport(
        folder=str(target), run=model.run, tta=tta, threshold=model.threshold, largest_difference=difference
    )


def wsinfer_config(model: ModelMetadata) -> dict[str, object]:
    """The content of config.json."""
    return {
        "spec_version": "1.0",
        "architecture": model.arch,
        "num_classes": len(CLASS_NAMES),
        "class_names": list(CLASS_NAMES),
        "patch_size_pixels": PATCH_SIZE,
        "spacing_um_px": model.mpp,
        # Scaling to the network's size and normalisation are inside the network, so that every viewer does them alike.
        "transform": [{"name": "Resize", "arguments": {"size": PATCH_SIZE}}, {"name": "ToTensor"}],
    }


def _trace(network: CalibratedNetwork) -> bytes:
    """The network as TorchScript, for batches of any size."""
    buffer = io.BytesIO()
    with torch.inference_mode(), _torchscript():
        traced = torch.jit.trace(network, torch.rand(2, 3, PATCH_SIZE, PATCH_SIZE))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer)
    return buffer.getvalue()


def _difference(torchscript: bytes, folder: Path, tta: bool) -> float:
    """The largest difference of a probability between TorchScript and the model, in batches of other sizes."""
    sample = SamplePatches(COMPARED, seed=0)
    patches = np.stack([sample.patch(row) for row in range(COMPARED)])
    expected = load(folder, tta=tta)(patches).probabilities
    images = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode(), _torchscript():
        network = torch.jit.load(io.BytesIO(torchscript), map_location="cpu")  # type: ignore[no-untyped-call]
        logits = torch.cat([network(images[:1]), network(images[1:])])
    return float(np.abs(logits.softmax(1)[:, 1].double().numpy() - expected).max())


@contextmanager
def _torchscript() -> Iterator[None]:
    """Silence torch's warning that TorchScript is deprecated: it is what the extension reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
