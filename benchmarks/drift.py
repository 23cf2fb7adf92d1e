"""How often `pcam drift` alarms falsely, and how often it finds a change, on real patches; its seconds and memory.

    python -m benchmarks.drift MODEL PATCHES [--draws 200] [--changed-draws 60]

MODEL is a published model, PATCHES an archive of which it has seen nothing. In each draw 1,000 of them are the
reference and 500 others the new patches: as they are, or changed. `other stain` takes each from one of two clusters.
"""

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.stats import beta
from sklearn.cluster import KMeans

from benchmarks.machine import write_result
from pcam_model.core.paths import resolve_store_uri
from pcam_model.data.image_inputs import Images
from pcam_model.data.stain_moments import stain_moments
from pcam_model.evaluation.drift import compare_with_reference
from pcam_model.evaluation.drift_reference import DriftSample, drift_sample
from pcam_model.inference.backends import TorchBackend
from pcam_model.inference.drift import measure_drift
from pcam_model.registry.resolve import find_model

REFERENCE, NEW = 1000, 500
STAINS = slice(0, 6)  # of the stain moments: without sharpness and block edges
Patches = NDArray[np.uint8]


def gamma(image: Image.Image) -> Image.Image:
    """The image with a gamma of 1.2."""
    return image.point([round(255 * (value / 255) ** 1.2) for value in range(256)] * 3)


def jpeg(image: Image.Image) -> Image.Image:
    """The image after JPEG of quality 30."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=30)
    return Image.open(content).convert("RGB")


def blur(image: Image.Image) -> Image.Image:
    """The image blurred by one pixel."""
    return image.filter(ImageFilter.GaussianBlur(1))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {"gamma 1.2": gamma, "JPEG 30": jpeg, "blur 1 px": blur}


def changed(patches: Patches, change: Callable[[Image.Image], Image.Image]) -> Patches:
    """All patches, changed."""
    return np.stack([np.asarray(change(Image.fromarray(patch))) for patch in patches])


def take(sample: DriftSample, rows: NDArray[np.int64]) -> DriftSample:
    """Some patches of a sample."""
    return DriftSample(sample.moments[rows], sample.features[rows], sample.probabilities[rows])


def alarms(
    draws: int, reference: DriftSample, new: DriftSample, sides: Callable[[np.random.Generator], Any]
) -> dict[str, Any]:
    """How often the draws alarm, with the exact 95 % interval; `sides` draws rows of reference and new."""
    count = 0
    for seed in range(draws):
        old_rows, new_rows = sides(np.random.default_rng(seed))
        count += compare_with_reference(take(reference, old_rows), take(new, new_rows), seed).drifted
    low = beta.ppf(0.025, count, draws - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, draws - count) if count < draws else 1.0
    return {"alarms": count, "draws": draws, "share": count / draws, "interval": [float(low), float(high)]}


def disjoint(count: int) -> Callable[[np.random.Generator], Any]:
    """Draws disjoint rows of reference and new."""

    def draw(rng: np.random.Generator) -> Any:
        order = rng.permutation(count)
        return order[:REFERENCE], order[REFERENCE : REFERENCE + NEW]

    return draw


def between(old: NDArray[np.int64], new: NDArray[np.int64]) -> Callable[[np.random.Generator], Any]:
    """Draws rows of two groups."""
    return lambda rng: (rng.permutation(old)[:REFERENCE], rng.permutation(new)[:NEW])


def whole_measurement(folder: Path, patches: Patches) -> dict[str, Any]:
    """Seconds and peak memory of the measurement on 20,000 images in a folder."""
    with tempfile.TemporaryDirectory() as made:
        for i in range(20_000):
            Image.fromarray(patches[i % len(patches)]).save(Path(made) / f"{i}.jpg", quality=75)
        images = Images([Path(made)])
        start = time.perf_counter()
        measure_drift(folder, images)
        return {
            "images": len(images),
            "seconds": time.perf_counter() - start,
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def main() -> None:
    """Measure, and write benchmarks/results/drift.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("patches", type=Path)
    parser.add_argument("--store", default="")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--changed-draws", type=int, default=60)
    options = parser.parse_args()
    folder = find_model(options.model, resolve_store_uri(options.store), Path(tempfile.mkdtemp(prefix="pcam-drift-")))
    backend, images = TorchBackend(folder), Images([options.patches])
    patches = np.stack([images.patch(row) for row in range(len(images))])

    def sample(of: Patches) -> DriftSample:
        return drift_sample(backend.network, of, backend.model.image_size, backend.model.scaling)

    whole = sample(patches)
    result: dict[str, Any] = {"same domain": alarms(options.draws, whole, whole, disjoint(len(patches)))}
    stains = stain_moments(patches)[:, STAINS]
    cluster = KMeans(2, n_init=10, random_state=0).fit_predict((stains - stains.mean(0)) / stains.std(0))
    small, large = sorted((np.flatnonzero(cluster == k) for k in (0, 1)), key=len)
    result["other stain"] = alarms(options.changed_draws, whole, whole, between(large, small))
    for name, change in CHANGES.items():
        result[name] = alarms(options.changed_draws, whole, sample(changed(patches, change)), disjoint(len(patches)))
        print(name, result[name], flush=True)
    figures = {"patches": len(patches), "power": result, "whole_measurement": whole_measurement(folder, patches)}
    write_result("drift", "python -m benchmarks.drift MODEL PATCHES", figures)


if __name__ == "__main__":
    main()
