"""The import of onnxruntime, without its telemetry."""

import os
from types import ModuleType

from pcam_model.core.errors import require_package


def import_onnxruntime(what: str) -> ModuleType:
    """The module onnxruntime; its telemetry, which it would start on import, is off unless the user has set it.

    Args:
        what: what needs it, for the message where it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with require_package(what, extra="onnx"):
        import onnxruntime
    return onnxruntime  # type: ignore[no-any-return]
