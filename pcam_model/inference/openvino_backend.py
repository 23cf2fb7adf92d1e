"""The backend OpenVINO: the network of model.onnx on Intel's and AMD's CPUs, in float32 or bfloat16."""

from pathlib import Path

from pcam_model.core.errors import ConfigError, first_line
from pcam_model.core.model_metadata import ONNX_FILE, read_metadata
from pcam_model.core.openvino_runtime import import_openvino
from pcam_model.inference.backends import (
    PROBE,
    Logits,
    Patches,
    Precision,
    mean_logits,
    model_error,
    model_errors,
    numpy_views,
)

CAPABILITY = {"float32": "FP32", "bfloat16": "BF16"}
HINT = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoBackend:
    """The network in OpenVINO; imports no torch, and may be called from several threads."""

    batch_size = 64

    def __init__(self, folder: Path, precision: Precision = "float32") -> None:
        """Compile model.onnx.

        Raises:
            ConfigError: OpenVINO is not installed, or the CPU does not compute in this precision.
            ModelError: the file is missing, damaged or unknown to OpenVINO.
        """
        openvino = import_openvino("the backend openvino")
        self.model, self.precision = read_metadata(folder, ONNX_FILE), precision
        self.path = folder / ONNX_FILE
        core = openvino.Core()
        if CAPABILITY[precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigError(f"this CPU does not compute in {precision}; leave out --precision")
        # LATENCY: one batch at a time on all cores.
        settings = {"INFERENCE_PRECISION_HINT": HINT[precision], "PERFORMANCE_HINT": "LATENCY"}
        try:
            self.network = core.compile_model(str(self.path), "CPU", settings)
        except RuntimeError as error:
            raise model_error(error, f"{self.path} cannot be opened ({first_line(error)}); pull it again") from error
        with model_errors(self.path):  # OpenVINO itself would convert the patches
            if (kind := self.network.input(0).element_type) != openvino.Type.u8:
                raise ValueError(f"its input is {kind.get_type_name()}")
        self(PROBE, tta=False)

    def __call__(self, patches: Patches, tta: bool) -> Logits:
        """See `Backend`."""
        with model_errors(self.path):
            request = self.network.create_infer_request()
            logits = [request.infer([view])[0].copy() for view in (numpy_views(patches) if tta else [patches])]
        return mean_logits(logits, self.path)
