"""pcam: from histopathology patches to a published, trusted cancer detector."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcam_model.inference.predictor import Predictor as Predictor
    from pcam_model.inference.predictor import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`pcam_model.load` and `pcam_model.Predictor`, imported when they are asked for: the command starts quickly."""
    if name in ("load", "Predictor"):
        from pcam_model.inference import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module 'pcam_model' has no attribute {name!r}")
