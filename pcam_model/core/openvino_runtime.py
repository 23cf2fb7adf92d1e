"""The import of OpenVINO, without its telemetry."""

import sys
from types import ModuleType

from pcam_model.core.errors import require_package

TELEMETRY = "openvino_telemetry"


def import_openvino(what: str) -> ModuleType:
    """The module openvino. Its telemetry, which would write a user's id into the home, is not loaded with it.

    Args:
        what: what needs it, for the message where it is not installed.
    """
    absent = TELEMETRY not in sys.modules
    if absent:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # openvino then takes its own stub
    try:
        with require_package(what, extra="openvino"):
            import openvino
    finally:
        if absent:
            del sys.modules[TELEMETRY]
    return openvino  # type: ignore[no-any-return]
