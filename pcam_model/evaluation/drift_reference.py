"""What a model has seen, as a small sample of held-out patches: new patches are compared with it.

`drift.safetensors` in a model's folder, at most `MAX_BYTES`: stain moments, features before the last layer, and
probabilities.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from pcam_model.core.errors import ModelError
from pcam_model.core.files import write_atomic
from pcam_model.core.platt_scaling import PlattScaling
from pcam_model.core.rng import derived_seed
from pcam_model.data.patch_loader import normalise
from pcam_model.data.stain_moments import MOMENTS, stain_moments
from pcam_model.training.network import PatchNetwork

DRIFT_FILE = "drift.safetensors"
MAX_BYTES = 5_000_000
REFERENCE_SIZE = 1000
REFERENCE_KEY = 70  # the first number of an RNG key: what the random numbers are for
BATCH = 64


@dataclass(frozen=True)
class DriftSample:
    """Stain moments, features and probabilities of N patches: what drift tests compare."""

    moments: NDArray[np.float32]
    """(N, 8): stain and sharpness, `data.stain_moments.MOMENTS`."""
    features: NDArray[np.float32]
    """(N, 512): the input of the network's last layer."""
    probabilities: NDArray[np.float64]
    """(N,): calibrated, of one view."""
    slides: tuple[str, ...] = ()
    """The slide of each patch; empty where slides are unknown."""

    def __len__(self) -> int:
        return len(self.probabilities)


@torch.inference_mode()
def features_and_logits(network: PatchNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """The input (B, 512) of the last layer and the logits (B, 2), of normalised images float (B, 3, S, S)."""
    *first, last = network.head
    features = network.body(images.contiguous(memory_format=torch.channels_last))
    for layer in first:
        features = layer(features)
    return features.float(), last(features).float()


def drift_sample(
    network: PatchNetwork,
    patches: NDArray[np.uint8],
    image_size: int,
    scaling: PlattScaling,
    slides: tuple[str, ...] = (),
) -> DriftSample:
    """Stain moments, features and probabilities of patches.

    Args:
        network: in evaluation mode.
        patches: uint8 (N, 96, 96, 3).
        image_size: height and width of the network's input.
        scaling: of the model.
        slides: of the patches, or empty.
    """
    device = next(network.parameters()).device
    features, log_odds = [np.empty((0, 512), np.float32)], [np.empty(0, np.float64)]
    for start in range(0, len(patches), BATCH):
        batch = torch.from_numpy(np.require(patches[start : start + BATCH], requirements="W")).to(device)
        computed, logits = features_and_logits(network, normalise(batch, image_size))
        features.append(computed.cpu().numpy())
        log_odds.append((logits[:, 1] - logits[:, 0]).double().cpu().numpy())
    probabilities = scaling.probability(np.concatenate(log_odds))
    return DriftSample(stain_moments(patches), np.concatenate(features), probabilities, slides)


def draw_rows(count: int, limit: int, seed: int) -> NDArray[np.int64]:
    """`limit` of the rows 0..count-1 in their order, drawn by the seed; all where there are no more."""
    rng = np.random.default_rng(derived_seed(seed, REFERENCE_KEY))
    return np.sort(rng.permutation(count)[:limit])


def write_reference(folder: Path, sample: DriftSample) -> None:
    """Write a model's reference into its folder; features are kept in half precision."""
    arrays: dict[str, NDArray[Any]] = {
        "moments": sample.moments,
        "features": sample.features.astype(np.float16),
        "probabilities": sample.probabilities.astype(np.float32),
    }
    write_atomic(folder / DRIFT_FILE, save(arrays, metadata={"slides": json.dumps(sample.slides)}))


def read_reference(folder: Path) -> DriftSample:
    """The reference in a model's folder. Raises ModelError where there is none, or it is damaged."""
    path = folder / DRIFT_FILE
    if not path.is_file():
        raise ModelError(
            f"{folder} has no {DRIFT_FILE}: the model was published without a reference of what it has seen; "
            "train it again with this pcam"
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes, expected at most {MAX_BYTES:,}")
        with safe_open(path, framework="numpy") as file:
            arrays = {name: np.asarray(file.get_tensor(name)) for name in ("moments", "features", "probabilities")}
            slides = json.loads((file.metadata() or {}).get("slides", "[]"))
        return _checked(arrays, slides)
    except (SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({str(error).splitlines()[0][:120]}); pull the model again") from error


def _checked(arrays: dict[str, NDArray[Any]], slides: Any) -> DriftSample:
    """The sample of these arrays. Raises ValueError where shapes differ or a number is not finite."""
    count = len(arrays["probabilities"])
    shapes = {name: array.shape for name, array in arrays.items()}
    expected = {"moments": (count, len(MOMENTS)), "features": (count, 512), "probabilities": (count,)}
    if shapes != expected or not count:
        raise ValueError(f"shapes {shapes}, expected {expected}")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("numbers that are not finite")
    if not isinstance(slides, list) or len(slides) not in (0, count) or not all(isinstance(s, str) for s in slides):
        raise ValueError(f"slides of {count} patches expected")
    return DriftSample(
        arrays["moments"].astype(np.float32),
        arrays["features"].astype(np.float32),
        arrays["probabilities"].astype(np.float64),
        tuple(slides),
    )
