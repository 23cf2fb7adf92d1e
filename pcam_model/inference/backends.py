"""What computes a published network: torch, or onnxruntime, which is faster on a processor and needs no torch."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import ModelError, PcamError
from pcam_model.core.model_metadata import GRAPH, Model, read_model

Patches = NDArray[np.uint8]
Logits = NDArray[np.float32]
Name = Literal["torch", "onnx"]
GPUS = ("nvidia[0-9]*", "kfd", "dxg")  # what Linux calls the devices of NVIDIA, of AMD, and of a GPU under Windows


class Backend(Protocol):
    """A network, ready to compute."""

    model: Model
    batch: int
    """How many patches it likes to see at once."""

    def __call__(self, patches: Patches, tta: bool) -> Logits:
        """uint8 (B, 96, 96, 3) -> logits (B, 2) in float32; with `tta` their mean over the 8 symmetries."""


class TorchBackend:
    """The network in torch, on the first GPU where there is one."""

    def __init__(self, folder: Path) -> None:
        try:
            import torch
        except ModuleNotFoundError:
            raise PcamError("torch is not installed; pip install pcam, or use the runtime onnx") from None
        from pcam_model.evaluation.forward import BATCH
        from pcam_model.training.model_io import load_model

        network, self.model = load_model(folder)
        self.network, self.device = network, next(network.parameters()).device
        self.batch, self.torch = BATCH.get(self.device.type, 64), torch

    def __call__(self, patches: Patches, tta: bool) -> Logits:
        """See `Runtime`."""
        from pcam_model.data.patch_loader import normalise
        from pcam_model.evaluation.views import views

        with self.torch.inference_mode():
            images = normalise(
                self.torch.from_numpy(np.require(patches, requirements="W")).to(self.device), self.model.size
            )
            seen = [self.network(view).float() for view in (views(images) if tta else [images])]
            logits: Logits = self.torch.stack(seen).mean(0).cpu().numpy()
        return logits


class OnnxBackend:
    """The network as published in model.onnx; imports no torch."""

    batch = 64

    def __init__(self, folder: Path) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise PcamError("onnxruntime is not installed; pip install 'pcam[onnx]'") from None
        self.model = read_model(folder, GRAPH)
        there = onnxruntime.get_available_providers()
        wanted = [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})]
        try:
            self.session = onnxruntime.InferenceSession(
                str(folder / GRAPH), providers=[(name, options) for name, options in wanted if name in there]
            )
        except Exception as error:  # onnxruntime has an exception of its own for each reason
            raise ModelError(
                f"{folder / GRAPH} cannot be opened ({str(error).splitlines()[0]}); pull it again"
            ) from error
        self.input = self.session.get_inputs()[0].name

    def __call__(self, patches: Patches, tta: bool) -> Logits:
        """See `Runtime`."""
        seen = [self.session.run(None, {self.input: view})[0] for view in (_views(patches) if tta else [patches])]
        logits: Logits = np.mean(seen, axis=0, dtype=np.float32)
        return logits


BACKENDS: dict[str, type[TorchBackend] | type[OnnxBackend]] = {"torch": TorchBackend, "onnx": OnnxBackend}


class BackendChoice(NamedTuple):
    """A runtime that was chosen, and why."""

    name: Name
    why: str


def choose_backend(folder: Path) -> BackendChoice:
    """What is the fastest here for the model in a folder: onnxruntime on a processor, torch on a GPU."""
    if find_spec("torch") is None:
        return BackendChoice("onnx", "torch is not installed")
    if not read_model(folder).graph:
        return BackendChoice("torch", f"the model was published without {GRAPH}")
    if find_spec("onnxruntime") is None:
        return BackendChoice(
            "torch", "onnxruntime, which is faster without a GPU, is missing; pip install 'pcam[onnx]'"
        )
    if _torch_has_a_gpu():
        return BackendChoice("torch", "there is a GPU")
    return BackendChoice("onnx", "there is no GPU, and it is faster on a processor; the same within 1e-4 in logits")


def _torch_has_a_gpu() -> bool:
    """Asked without torch where the answer is plain: its import takes seconds."""
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in GPUS):
        return False
    import torch

    return bool(torch.cuda.is_available())


def _views(patches: Patches) -> Iterator[Patches]:
    """As `evaluation.views`, of (B, S, S, 3) and without torch."""
    for turns in range(4):
        turned = np.rot90(patches, turns, (1, 2))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[:, :, ::-1])
