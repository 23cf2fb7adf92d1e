"""All that changes while a stage is trained, and its creation."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pcam_model.training.cuda_graph import CudaGraph
from pcam_model.training.device import (
    ComputeConfig,
    Precision,
    autocast_dtype,
    set_deterministic,
    set_float32_precision,
)
from pcam_model.training.distributed import SINGLE_PROCESS, DistContext
from pcam_model.training.ema import WeightEMA
from pcam_model.training.nan_guard import BatchNormStatistics, LossScaler
from pcam_model.training.network import PatchNetwork
from pcam_model.training.optimizer import make_optimizer
from pcam_model.training.sync_batchnorm import convert_sync_batchnorm

ENGINE_VERSION = 2  # raised when the same config and data no longer give the same steps, to refuse older checkpoints


@dataclass
class TrainState:
    """Network, optimizer and all else that changes while a stage is trained."""

    network: PatchNetwork
    optimizer: torch.optim.Optimizer
    batchnorm: BatchNormStatistics
    step: int = 0
    """Optimizer steps taken in this stage."""
    ema: WeightEMA | None = None
    """The moving average of the weights, where the configuration has one."""
    dist: DistContext = SINGLE_PROCESS
    wrapped: nn.Module | None = None
    """The network compiled, or in DDP, where it is; shares its parameters with `network`."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """State dict of the best epoch so far, where the configuration stops early."""
    precision: Precision = "auto"
    scaler: LossScaler | None = None
    """In float16."""
    graph: CudaGraph | None = None
    """Of forward and backward pass, on a GPU, where each step computes its batch whole and in one process."""

    @property
    def train_module(self) -> nn.Module:
        """The module to call in training."""
        return self.network if self.wrapped is None else self.wrapped  # a compiled module has no truth value

    @property
    def device(self) -> torch.device:
        """The device of the network's parameters."""
        return next(self.network.parameters()).device

    def drop_graph(self) -> None:
        """Launch further steps kernel by kernel."""
        if self.graph:
            self.graph.reset()
            self.graph = None

    def parameters(self) -> list[nn.Parameter]:
        """All trainable parameters."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def create_train_state(
    network: PatchNetwork,
    lr_multipliers: list[float],
    device: torch.device,
    compute: ComputeConfig,
    ema: WeightEMA | None = None,
    dist: DistContext = SINGLE_PROCESS,
) -> TrainState:
    """The state before the first step: AdamW over the layer groups; the network compiled and in DDP as configured."""
    set_float32_precision()
    set_deterministic(compute.deterministic)
    if dist.world_size > 1:
        convert_sync_batchnorm(network, device)
    module: nn.Module = network
    if compute.compile:
        module = compile_network(network)
    if dist.world_size > 1:
        module = dist.wrap(module)
    is_captured = device.type == "cuda" and compute.cuda_graph and module is network
    return TrainState(
        network,
        make_optimizer(network, lr_multipliers),
        BatchNormStatistics(network),
        ema=ema,
        dist=dist,
        wrapped=None if module is network else module,
        precision=compute.precision,
        scaler=LossScaler(device) if autocast_dtype(device, compute.precision) == torch.float16 else None,
        graph=CudaGraph(device) if is_captured else None,
    )


def compile_network(network: PatchNetwork) -> nn.Module:
    """The network, compiled at its first call: one graph for each shape, whatever was compiled before."""
    return torch.compile(network, dynamic=False)  # type: ignore[return-value]
