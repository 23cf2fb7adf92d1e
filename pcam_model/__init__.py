"""pcam: from histopathology patches to a published, trusted cancer detector."""

import os
from typing import TYPE_CHECKING, Any

# Threads of OpenMP that wait by spinning take the cores from every other process: beside one, training is ten times
# slower. OpenMP reads the variable once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# cuBLAS computes the same bits each time with this workspace only, and reads the variable at its first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

if TYPE_CHECKING:
    from pcam_model.inference.predictor import Predictor as Predictor
    from pcam_model.inference.predictor import load as load

    __version__: str


def __getattr__(name: str) -> Any:
    """`load`, `Predictor` and `__version__`, imported on first use, so that `import pcam_model` stays quick."""
    if name in ("load", "Predictor"):
        from pcam_model.inference import predictor

        return getattr(predictor, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("pcam")
    raise AttributeError(f"module 'pcam_model' has no attribute {name!r}")
