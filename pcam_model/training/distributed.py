"""One training on several GPUs: a process a GPU, each with its share of every batch, as `torchrun` starts them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pcam_model.core.rng import BatchSlice


@dataclass(frozen=True)
class DistContext:
    """Which of how many processes this one is; alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, count: int) -> BatchSlice:
        """This process's rows of so many."""
        return BatchSlice(count * self.rank // self.world, count * (self.rank + 1) // self.world, count)

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def max_over_ranks(self, value: int, device: torch.device) -> int:
        """The largest of what the processes have; all of them wait for it."""
        if self.world == 1:
            return value
        found = torch.tensor(value, device=device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def joined(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over all processes."""
        known = inspect.signature(DistributedDataParallel.__init__).parameters  # renamed in torch 2.15
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(network, **options)


SINGLE_PROCESS = DistContext()


def dist_context() -> DistContext:
    """Which process this is, once the group is there; alone where there is none."""
    return DistContext(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else SINGLE_PROCESS


def convert_sync_batchnorm(network: nn.Module, device: torch.device) -> None:
    """Every BatchNorm normalises by the statistics of the whole batch, whichever process holds its rows; in place."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for module in list(network.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, HostSyncBatchNorm.like(layer))


class HostSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """PyTorch's SyncBatchNorm computes on GPUs only; this one does the same anywhere, for any process group."""

    @classmethod
    def like(cls, layer: nn.modules.batchnorm._BatchNorm) -> HostSyncBatchNorm:
        """With the parameters and buffers of a BatchNorm layer themselves."""
        made = cls(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        made._parameters, made._buffers = layer._parameters, layer._buffers
        return made.train(layer.training)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, ...) normalised over the rows of all processes."""
        if not self.training:
            return nn.functional.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        wide, over, shape = features.float(), [0, *range(2, features.ndim)], (1, -1, *[1] * (features.ndim - 2))
        count = dist_sum(torch.tensor(float(features.numel() // features.shape[1])))
        mean = dist_sum(wide.sum(over)) / count
        centred = wide - mean.view(shape)
        variance = dist_sum(centred.square().sum(over)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        normed = centred * (variance + self.eps).rsqrt().view(shape)
        return (normed * self.weight.view(shape) + self.bias.view(shape)).to(features.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)


class _Sum(torch.autograd.Function):
    """A sum over processes that gradients go back through."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def dist_sum(value: Tensor) -> Tensor:
    """The sum over all processes, differentiable."""
    result: Tensor = _Sum.apply(value)
    return result
