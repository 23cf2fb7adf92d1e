"""Export of a network to `model.onnx`, from uint8 patches to logits, compared with torch on real patches."""

import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pcam_model.core.errors import ModelError
from pcam_model.core.onnx_runtime import import_onnxruntime
from pcam_model.data.patch_loader import normalise
from pcam_model.training.network import PatchNetwork

PATCHES, LOGITS = "patches", "logits"
MAX_LOGIT_DIFFERENCE = 1e-4  # relative to the largest logit where that is more than 1


class NormalisedNetwork(nn.Module):
    """uint8 (B, H, W, 3) -> logits (B, 2), with resize and normalisation."""

    def __init__(self, network: PatchNetwork, image_size: int) -> None:
        super().__init__()
        self.body, self.head, self.image_size = network.body, network.head, image_size

    def forward(self, patches: Tensor) -> Tensor:
        """Logits of uint8 patches."""
        logits: Tensor = self.head(self.body(normalise(patches, self.image_size)))
        return logits


def export_onnx(path: Path, network: PatchNetwork, image_size: int, patches: NDArray[np.uint8]) -> float:
    """Export a network as ONNX with a dynamic batch size; returns the largest difference of a logit to torch's.

    Args:
        path: of the file, which is replaced only once the comparison has passed.
        network: not changed.
        image_size: of its input, in pixels.
        patches: uint8 (N, 96, 96, 3), N >= 2, on which both are compared.

    Raises:
        ModelError: onnx, onnxscript or onnxruntime is not installed, or the logits differ.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ModelError(f"{path.name} needs {package}, which is not installed; pip install 'pcam[pipeline]'")
    normalised = NormalisedNetwork(copy.deepcopy(network).cpu().float(), image_size).eval()
    temporary = path.with_name(f".{path.name}")
    try:
        with torch.inference_mode():
            expected = normalised(torch.from_numpy(patches)).numpy()
        _export(normalised, torch.from_numpy(patches[:2]), temporary)
        difference = _difference(temporary, patches, expected)
        if not difference <= MAX_LOGIT_DIFFERENCE:
            raise ModelError(
                f"{path.name} differs from the network by {difference:.1e}, allowed is {MAX_LOGIT_DIFFERENCE:.0e}"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return difference


def _export(normalised: nn.Module, example: Tensor, path: Path) -> None:
    dynamic_shapes = {PATCHES: {0: torch.export.Dim("batch", min=1)}}
    with _quiet_export():
        program = torch.onnx.export(
            normalised,
            (example,),
            dynamo=True,
            input_names=[PATCHES],
            output_names=[LOGITS],
            dynamic_shapes=dynamic_shapes,
            verbose=False,
            external_data=False,
        )
    if program is None:
        raise ModelError(f"{path.name}: torch exported nothing")
    program.save(str(path))


def _difference(path: Path, patches: NDArray[np.uint8], expected: NDArray[np.float32]) -> float:
    onnxruntime = import_onnxruntime(path.name)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    actual = np.concatenate([session.run([LOGITS], {PATCHES: batch})[0] for batch in (patches[:1], patches[1:])])
    return float(np.abs(actual - expected).max() / max(1.0, np.abs(expected).max()))


@contextmanager
def _quiet_export() -> Iterator[None]:
    """Silence the warnings and logs of torch's exporter."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
