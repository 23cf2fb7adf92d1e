"""pcam: from histopathology patches to a published, trusted cancer detector."""

from typing import TYPE_CHECKING, Any

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
