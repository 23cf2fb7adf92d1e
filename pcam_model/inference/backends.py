"""Backends that compute a published network: torch, onnxruntime or OpenVINO, which are faster on a CPU."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pcam_model.core.errors import ModelError, first_line, require_package
from pcam_model.core.limits import is_memory_error
from pcam_model.core.model_metadata import ONNX_FILE, ModelMetadata, read_metadata
from pcam_model.core.onnx_runtime import import_onnxruntime

Patches = NDArray[np.uint8]
Logits = NDArray[np.float32]
BackendName = Literal["torch", "onnx", "openvino"]
Precision = Literal["float32", "bfloat16"]
PROBE = np.zeros((1, 96, 96, 3), np.uint8)
GPU_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")  # device files of NVIDIA, of AMD, and of a GPU under Windows' Linux


class Backend(Protocol):
    """A network that is ready to compute."""

    model: ModelMetadata
    precision: Precision
    """In which it computes; logits are float32."""
    batch_size: int
    """The number of patches that it computes at once by default."""

    def __call__(self, patches: Patches, tta: bool) -> Logits:
        """Logits (B, 2) of uint8 patches (B, 96, 96, 3), float32; with `tta` their mean over the 8 symmetries."""


class TorchBackend:
    """The network in torch, on the first GPU where there is one."""

    precision: Precision = "float32"

    def __init__(self, folder: Path) -> None:
        with require_package("the backend torch"):
            import torch

            from pcam_model.training.model_io import load_model
            from pcam_model.training.validation import BATCH_SIZE
        network, self.model = load_model(folder)
        self.network, self.device = network, next(network.parameters()).device
        self.batch_size, self.torch = BATCH_SIZE.get(self.device.type, 64), torch

    def __call__(self, patches: Patches, tta: bool) -> Logits:
        """See `Backend`."""
        from pcam_model.data.patch_loader import normalise
        from pcam_model.evaluation.views import views

        with self.torch.inference_mode():
            images = normalise(
                self.torch.from_numpy(np.require(patches, requirements="W")).to(self.device), self.model.image_size
            )
            logits = [self.network(view).float() for view in (views(images) if tta else [images])]
            mean: Logits = self.torch.stack(logits).mean(0).cpu().numpy()
        return mean


class OnnxBackend:
    """The network of model.onnx in onnxruntime; imports no torch."""

    precision: Precision = "float32"
    batch_size = 64

    def __init__(self, folder: Path) -> None:
        onnxruntime = import_onnxruntime("the backend onnx")
        self.model, self.path = read_metadata(folder, ONNX_FILE), folder / ONNX_FILE
        available, options = onnxruntime.get_available_providers(), onnxruntime.SessionOptions()
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # it would take shared cores from others
        providers = [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})]
        try:
            self.session = onnxruntime.InferenceSession(
                str(self.path),
                options,
                [(name, settings) for name, settings in providers if name in available],
            )
        except Exception as error:  # onnxruntime has an exception of its own for each reason
            raise model_error(error, f"{self.path} cannot be opened ({first_line(error)}); pull it again") from error
        with model_errors(self.path):
            (self.input,) = self.session.get_inputs()
        self(PROBE, tta=False)

    def __call__(self, patches: Patches, tta: bool) -> Logits:
        """See `Backend`."""
        views = numpy_views(patches) if tta else [patches]
        with model_errors(self.path):
            logits = [self.session.run(None, {self.input.name: view})[0] for view in views]
        return mean_logits(logits, self.path)


def mean_logits(logits: list[Any], path: Path) -> Logits:
    """The mean of a network's logits of several views. Raises ModelError where they are not two a patch."""
    shapes = {(str(each.dtype), each.ndim, each.shape[1:]) for each in logits}
    if shapes != {("float32", 2, (2,))}:
        raise ModelError(
            f"{path} is no network of patches: its result is {logits[0].dtype} {logits[0].shape}, expected float32 "
            "with two logits a patch; do not use this model"
        )
    mean: Logits = np.mean(logits, axis=0, dtype=np.float32)
    return mean


@contextmanager
def model_errors(path: Path) -> Iterator[None]:
    """Raise ModelError where the block, which computes the network of `path`, fails; but not for want of memory."""
    try:
        yield
    except Exception as error:  # onnxruntime and OpenVINO have an exception for each reason, also ValueError
        raise model_error(
            error,
            f"{path} cannot be computed on patches, uint8 {PROBE.shape[1:]} ({first_line(error)}); do not use this "
            "model",
        ) from error


def model_error(error: Exception, message: str) -> Exception:
    """What is raised where a network fails: a ModelError with this message, or MemoryError where memory ran out."""
    return MemoryError(first_line(error)) if is_memory_error(error) else ModelError(message)


class BackendChoice(NamedTuple):
    """A backend's name, and the reason for its choice."""

    name: BackendName
    reason: str


def choose_backend(folder: Path) -> BackendChoice:
    """The fastest backend on this machine for the model in a folder: onnx on a CPU, torch on a GPU."""
    if find_spec("torch") is None:
        return BackendChoice("onnx", "torch is not installed")
    if not read_metadata(folder).onnx_sha256:
        return BackendChoice("torch", f"the model was published without {ONNX_FILE}")
    if find_spec("onnxruntime") is None:
        return BackendChoice(
            "torch", "onnxruntime, which is faster without a GPU, is not installed; pip install 'pcam[onnx]'"
        )
    if _torch_has_gpu():
        return BackendChoice("torch", "there is a GPU")
    return BackendChoice("onnx", "there is no GPU, and it is faster on a CPU; the same within 1e-4 in logits")


def _torch_has_gpu() -> bool:
    """Whether torch can use a GPU; torch, whose import takes seconds, is only imported where a device file exists."""
    if sys.platform == "linux" and not any(any(Path("/dev").glob(pattern)) for pattern in GPU_DEVICES):
        return False
    import torch

    return bool(torch.cuda.is_available())


def numpy_views(patches: Patches) -> Iterator[Patches]:
    """The 8 symmetries of patches (B, S, S, 3), in the order of `evaluation.views`, without torch."""
    for turns in range(4):
        turned = np.rot90(patches, turns, (1, 2))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[:, :, ::-1])
