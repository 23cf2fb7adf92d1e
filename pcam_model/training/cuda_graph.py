"""A function of tensors captured as a CUDA graph: one launch in place of hundreds, by the same kernels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pcam_model.core.log import log
from pcam_model.training.device import is_out_of_memory

WARMUP_CALLS = 3  # in which cuDNN chooses its algorithms

Compute = Callable[..., Sequence[Tensor]]


class CudaGraph:
    """Calls a function eagerly a few times, then captures and replays it; captured anew for other shapes.

    A replay reads static copies of the inputs, and overwrites its outputs and the gradients of the capture.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.shapes: list[torch.Size] = []
        self.calls = 0
        self.failed = False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.outputs: Sequence[Tensor] = ()

    def __call__(
        self, compute: Compute, inputs: Sequence[Tensor], clear_gradients: Callable[[], None]
    ) -> Sequence[Tensor]:
        """`compute(*inputs)`: scalars on the device, valid until the next call.

        Args:
            compute: forward and backward pass; called in the first calls and in the capture only.
            inputs: of the same dtypes at each call.
            clear_gradients: set all gradients to None, so that the backward pass makes them.
        """
        shapes = [tensor.shape for tensor in inputs]
        if shapes != self.shapes:
            self.reset()
            self.shapes = shapes
        if not self.graph and not self.failed and self.calls >= WARMUP_CALLS:
            clear_gradients()
            self._capture(compute, inputs)
        if not self.graph:
            clear_gradients()
            self.calls += 1
            return self._warm_up(compute, inputs)
        torch._foreach_copy_(self.inputs, list(inputs))
        self.graph.replay()
        return self.outputs

    def reset(self) -> None:
        """Free the graph and its memory."""
        self.graph, self.inputs, self.outputs, self.calls, self.shapes = None, [], (), 0, []

    def _warm_up(self, compute: Compute, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Call the function on the capture's stream, where autograd's nodes have to be made."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = compute(*inputs)
        current.wait_stream(self.stream)
        return outputs

    def _capture(self, compute: Compute, inputs: Sequence[Tensor]) -> None:
        """Capture the function; where CUDA refuses, say so, and stay eager."""
        graph = torch.cuda.CUDAGraph()
        try:
            self.inputs = [_static(tensor) for tensor in inputs]
            # thread_local: other threads read, pin and send the next batch meanwhile.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.outputs = compute(*self.inputs)
            self.graph = graph
        except RuntimeError as error:
            self.inputs, self.outputs, self.failed = [], (), True
            if is_out_of_memory(error):
                torch.cuda.empty_cache()
            reason = str(error).strip().splitlines()[0]
            log.warning("The step cannot be captured as a CUDA graph (%s): it is launched kernel by kernel", reason)
        else:
            log.info("From here on each step of %d patches is one CUDA graph", len(inputs[0]))


def _static(tensor: Tensor) -> Tensor:
    """Memory for a tensor's values at each replay; images in the network's own memory format."""
    memory_format = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
    return torch.empty_like(tensor, memory_format=memory_format)
