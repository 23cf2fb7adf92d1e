"""The predictor of a published model: patches in, calibrated probabilities and labels out."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.core.model_metadata import ModelMetadata
from pcam_model.core.optional_cache import call_with_cache
from pcam_model.core.paths import resolve_store_uri
from pcam_model.data.image import PATCH_SIZE, PatchError, to_opaque_rgb
from pcam_model.inference.backends import (
    Backend,
    BackendChoice,
    BackendName,
    Logits,
    OnnxBackend,
    Patches,
    Precision,
    TorchBackend,
    choose_backend,
)
from pcam_model.inference.openvino_backend import OpenVinoBackend
from pcam_model.registry.resolve import find_model


class Predictions(NamedTuple):
    """Predictions of N patches, in the order of the input."""

    probabilities: NDArray[np.float64]
    """(N,): the calibrated probability that the centre 32x32 holds tumour."""
    labels: NDArray[np.int64]
    """(N,): 1 where the probability reaches the model's operating point."""


class Predictor:
    """Predicts patches with one model."""

    def __init__(self, backend: Backend, choice: BackendChoice, tta: bool | None = None) -> None:
        """Make a predictor; see `load`, which finds the model.

        Args:
            backend: computes the network.
            choice: the backend's name and why it was chosen.
            tta: whether logits are means over the 8 symmetries of a patch; by default as the model was calibrated.
        """
        self.backend = backend
        self.backend_choice = choice
        self.tta = backend.model.tta if tta is None else tta

    @property
    def model(self) -> ModelMetadata:
        """The model's metadata: run, threshold, calibration, classes and versions."""
        return self.backend.model

    def __call__(self, patches: Any) -> Predictions:
        """Probabilities and labels of one patch or many.

        Args:
            patches: uint8 (96, 96, 3) or (N, 96, 96, 3) as a numpy array or a torch tensor, a PIL image in RGB, or a
                sequence of any of these.

        Raises:
            SourceError: they are something else.
        """
        return self.predictions(self.logits(as_patches(patches)))

    def logits(self, patches: Patches, batch_size: int = 0) -> Logits:
        """Logits (N, 2), float32, of uint8 patches (N, 96, 96, 3); `batch_size` 0 is the backend's default."""
        step = batch_size or self.backend.batch_size
        batches = [self.backend(patches[start : start + step], self.tta) for start in range(0, len(patches), step)]
        return np.concatenate(batches) if batches else np.empty((0, 2), np.float32)

    def predictions(self, logits: Logits) -> Predictions:
        """Calibrated probabilities, and labels at the operating point, of logits (N, 2)."""
        probabilities = self.model.probabilities(logits)
        return Predictions(probabilities, (probabilities >= self.model.threshold).astype(np.int64))

    @property
    def precision(self) -> Precision:
        """In which the network is computed."""
        return self.backend.precision

    def __repr__(self) -> str:
        model = self.model
        return (
            f"Predictor(run={model.run!r}, arch={model.arch!r}, image_size={model.image_size}, "
            f"backend={self.backend_choice.name!r}, precision={self.precision!r}, tta={self.tta}, "
            f"threshold={model.threshold:.4g})"
        )


def load(
    model: str | Path,
    *,
    store: str = "",
    backend: BackendName | Literal["auto"] = "torch",
    tta: bool | None = None,
    precision: Precision = "float32",
) -> Predictor:
    """The predictor of a published model, which is fetched and verified where it is not in the cache.

    Args:
        model: a channel (`champion`), a run, a folder, or an address: of a run, a channel, or a store, which means its
            champion.
        store: the store of plain names, `file:///folder` or `s3://bucket/prefix`; PCAM_STORE by default.
        backend: `torch`, which computes exactly what was trained and reported; `onnx`, which needs no torch and agrees
            with it within 1e-4 in logits; `openvino`, the same in OpenVINO; or `auto`, the faster of torch and onnx on
            this machine, as in `pcam predict` (`backend_choice` says which, and why).
        tta: whether the mean over the 8 symmetries of a patch is taken; by default as the model was calibrated.
        precision: `float32`, or `bfloat16`, which OpenVINO computes in, faster and less exactly.

    Raises:
        ConfigError: there is no such backend, or it does not compute in this precision here.
        ModelError: there is no such model, or it is damaged.
        StoreError: the store refuses, or is unavailable and the model was never fetched before.
    """
    if backend not in (*get_args(BackendName), "auto"):
        raise ConfigError(f"there is no backend {backend!r}; choose torch, onnx, openvino or auto")
    if precision not in get_args(Precision):
        raise ConfigError(f"there is no precision {precision!r}; choose float32 or bfloat16")
    if precision == "bfloat16" and backend not in ("openvino", "auto"):
        raise ConfigError(f"the backend {backend} computes in float32; bfloat16 needs the backend openvino")
    folder = call_with_cache(lambda cache: find_model(str(model), resolve_store_uri(store), cache))
    choice = _choose(folder, backend, precision)
    return Predictor(_open_backend(choice.name, folder, precision), choice, tta)


def _choose(folder: Path, backend: BackendName | Literal["auto"], precision: Precision) -> BackendChoice:
    if backend != "auto":
        return BackendChoice(backend, "it was given")
    if precision == "bfloat16":
        return BackendChoice("openvino", "it computes in bfloat16")
    return choose_backend(folder)


def _open_backend(name: BackendName, folder: Path, precision: Precision) -> Backend:
    if name == "openvino":
        return OpenVinoBackend(folder, precision)
    return TorchBackend(folder) if name == "torch" else OnnxBackend(folder)


def as_patches(patches: Any) -> Patches:
    """Anything that `Predictor` takes, as uint8 (N, 96, 96, 3)."""
    if isinstance(patches, Sequence) and not isinstance(patches, str | bytes):
        arrays = [as_patches(patch) for patch in patches]
        return np.concatenate(arrays) if arrays else np.empty((0, PATCH_SIZE, PATCH_SIZE, 3), np.uint8)
    if hasattr(patches, "detach"):  # a torch tensor, without importing torch
        patches = patches.detach().cpu().numpy()
    if isinstance(patches, Image) and patches.mode in ("RGBA", "P"):
        with suppress(PatchError):
            patches = to_opaque_rgb(patches)
    mode = patches.mode if isinstance(patches, Image) else "RGB"
    array = np.asarray(patches)
    shape = (PATCH_SIZE, PATCH_SIZE, 3)
    if mode != "RGB" or array.dtype != np.uint8 or array.shape[-3:] != shape or array.ndim not in (3, 4):
        kind = f"an image of mode {mode}" if mode != "RGB" else f"{array.dtype} {array.shape}"
        raise SourceError(
            f"a patch is uint8 {shape}, red, green and blue from 0 to 255, many are (N, {str(shape)[1:]}; this is "
            f"{kind}; convert it, or give image files to pcam predict"
        )
    return np.ascontiguousarray(array.reshape(-1, *shape))
