"""A published model, ready to use: patches in, calibrated probabilities and labels out."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.core.model_metadata import Model
from pcam_model.core.paths import cache_dir, resolve_store_uri
from pcam_model.data.image import SIZE, PatchError, opaque
from pcam_model.inference.backends import BACKENDS, Backend, BackendChoice, Logits, Name, Patches, choose_backend
from pcam_model.registry.resolve import find_model


class Predictions(NamedTuple):
    """Of N patches, in the order in which they were given."""

    probabilities: NDArray[np.float64]
    """(N,): the calibrated probability that the centre 32x32 holds tumour."""
    labels: NDArray[np.int64]
    """(N,): 1 where the probability reaches the model's operating point."""


class Predictor:
    """Predicts with one model; the views (`tta`) are the model's own unless others are asked for."""

    def __init__(self, runtime: Backend, chosen: BackendChoice, tta: bool | None = None) -> None:
        self.runtime = runtime
        self.chosen = chosen
        """The name of what computes, and why it does."""
        self.tta = runtime.model.tta if tta is None else tta

    @property
    def model(self) -> Model:
        """What is said of the model: its run, operating points, calibration, classes and versions."""
        return self.runtime.model

    def __call__(self, patches: Any) -> Predictions:
        """Probabilities and labels of one patch or many.

        Args:
            patches: uint8 (96, 96, 3) or (N, 96, 96, 3) as a numpy array or a torch tensor, a PIL image in RGB, or a
                sequence of any of these.

        Raises:
            SourceError: they are something else.
        """
        return self.of_logits(self.logits(as_patches(patches)))

    def logits(self, patches: Patches, batch: int = 0) -> Logits:
        """uint8 (N, 96, 96, 3) -> float32 (N, 2), `batch` at a time."""
        step = batch or self.runtime.batch
        parts = [self.runtime(patches[start : start + step], self.tta) for start in range(0, len(patches), step)]
        return np.concatenate(parts) if parts else np.empty((0, 2), np.float32)

    def of_logits(self, logits: Logits) -> Predictions:
        """Logits (N, 2), calibrated and held against the operating point."""
        probabilities = self.model.probabilities(logits)
        return Predictions(probabilities, (probabilities >= self.model.threshold).astype(np.int64))

    def __repr__(self) -> str:
        about = self.model
        return (
            f"Predictor(run {about.run}, {about.architecture} at {about.size} px, by {self.chosen.name}, from "
            f"{about.threshold:.4g} tumour)"
        )


def load(
    model: str | Path, *, store: str = "", runtime: Name | Literal["auto"] = "torch", tta: bool | None = None
) -> Predictor:
    """A published model, found by its name, fetched where it is not here yet, verified, and ready to predict.

    Args:
        model: a channel (`champion`), a run, a folder, or an address: of a run, a channel, or a store, which means its
            champion.
        store: the store of plain names, `file:///folder` or `s3://bucket/prefix`; PCAM_STORE by default.
        runtime: `torch`, which computes just what was trained and reported; `onnx`, which needs no torch and agrees
            with it within 1e-4 in logits; or `auto`, the faster of them here, as in `pcam predict` (`chosen` says
            which, and why).
        tta: whether the mean over the 8 symmetries of a patch is taken; as the model was calibrated by default.

    Raises:
        ModelError: there is no such model, or it is damaged.
        StoreError: the store refuses, or does not answer and the model was never fetched before.
    """
    if runtime not in (*BACKENDS, "auto"):
        raise ConfigError(f"there is no runtime {runtime!r}; choose torch, onnx or auto")
    folder = find_model(str(model), resolve_store_uri(store), cache_dir())
    chosen = choose_backend(folder) if runtime == "auto" else BackendChoice(runtime, "it was asked for")
    return Predictor(BACKENDS[chosen.name](folder), chosen, tta)


def as_patches(given: Any) -> Patches:
    """What a caller may give as uint8 (N, 96, 96, 3); see `Predictor.__call__`."""
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        many = [as_patches(one) for one in given]
        return np.concatenate(many) if many else np.empty((0, SIZE, SIZE, 3), np.uint8)
    if hasattr(given, "detach"):  # a torch tensor, without importing torch
        given = given.detach().cpu().numpy()
    if isinstance(given, Image) and given.mode in ("RGBA", "P"):
        with suppress(PatchError):
            given = opaque(given)
    mode = given.mode if isinstance(given, Image) else "RGB"
    array = np.asarray(given)
    if mode != "RGB" or array.dtype != np.uint8 or array.shape[-3:] != (SIZE, SIZE, 3) or array.ndim not in (3, 4):
        found = f"an image of mode {mode}" if mode != "RGB" else f"{array.dtype} {array.shape}"
        raise SourceError(
            f"a patch is uint8 ({SIZE}, {SIZE}, 3), red, green and blue from 0 to 255, many are (N, {SIZE}, {SIZE}, "
            f"3); this is {found}; convert it, or give image files to pcam predict"
        )
    return np.ascontiguousarray(array.reshape(-1, SIZE, SIZE, 3))
