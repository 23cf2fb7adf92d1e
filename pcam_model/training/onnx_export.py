"""The network as `model.onnx`, for who has no torch: from a patch's bytes to logits, checked on real patches."""

import copy
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pcam_model.core.errors import ModelError
from pcam_model.data.patch_loader import normalise
from pcam_model.training.network import PatchNetwork

PATCHES, LOGITS = "patches", "logits"
CLOSE = 1e-4  # of a logit, or of the largest one where that is more than 1


class NormalisedNetwork(nn.Module):
    """uint8 (B, H, W, 3) -> logits (B, 2): resize and normalisation inside."""

    def __init__(self, network: PatchNetwork, size: int) -> None:
        super().__init__()
        self.body, self.head, self.size = network.body, network.head, size

    def forward(self, patches: Tensor) -> Tensor:
        """Logits of the patches' bytes."""
        logits: Tensor = self.head(self.body(normalise(patches, self.size)))
        return logits


def export_onnx(path: Path, network: PatchNetwork, size: int, patches: NDArray[np.uint8]) -> float:
    """Write the network as ONNX, any number of patches at a time; returns the largest difference of a logit to torch's.

    Args:
        path: where to; replaced as a whole, and only by what passed the check.
        network: is left as it is.
        size: the side that it sees, in pixels.
        patches: uint8 (N, 96, 96, 3), N >= 2, on which both are compared.

    Raises:
        ModelError: onnx, onnxscript or onnxruntime is not installed, or the graph is not the network.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ModelError(f"{path.name} needs {package}, which is not installed; pip install 'pcam[pipeline]'")
    whole = NormalisedNetwork(copy.deepcopy(network).cpu().float(), size).eval()
    part = path.with_name(f".{path.name}")
    try:
        with torch.inference_mode():
            expected = whole(torch.from_numpy(patches)).numpy()
        _export(whole, torch.from_numpy(patches[:2]), part)
        difference = _difference(part, patches, expected)
        if not difference <= CLOSE:
            raise ModelError(f"{path.name} differs from the network by {difference:.1e}, allowed is {CLOSE:.0e}")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return difference


def _export(whole: nn.Module, example: Tensor, path: Path) -> None:
    many = {PATCHES: {0: torch.export.Dim("batch", min=1)}}
    with _quiet():
        program = torch.onnx.export(
            whole, (example,), dynamo=True, input_names=[PATCHES], output_names=[LOGITS], dynamic_shapes=many,
            verbose=False, external_data=False,
        )  # fmt: skip
    if program is None:
        raise ModelError(f"{path.name}: torch exported nothing")
    program.save(str(path))


def _difference(path: Path, patches: NDArray[np.uint8], expected: NDArray[np.float32]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run([LOGITS], {PATCHES: some})[0] for some in (patches[:1], patches[1:])])
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its own inner life."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
