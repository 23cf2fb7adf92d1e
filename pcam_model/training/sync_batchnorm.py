"""BatchNorm over all processes' rows: PyTorch's own on a GPU, one for any process group on a CPU."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def convert_sync_batchnorm(network: nn.Module, device: torch.device) -> None:
    """Replace BatchNorm layers, in place, by ones that normalise by the statistics of the whole batch.

    What timm's layers apply after the normalisation, as an activation, is applied after it still.
    """
    kinds = DEVICE_LAYERS if device.type == "cuda" else HOST_LAYERS
    for module in list(network.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, _synchronised(layer, kinds[hasattr(layer, "act")]))


def _synchronised(layer: nn.modules.batchnorm._BatchNorm, kind: type[nn.modules.batchnorm._BatchNorm]) -> nn.Module:
    """A layer that shares the parameters, the buffers and the children of a BatchNorm layer."""
    made = kind(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    made._parameters, made._buffers, made._modules = layer._parameters, layer._buffers, layer._modules
    made.training = layer.training
    return made


class HostSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """`nn.SyncBatchNorm` for CPU processes, which PyTorch's does not support."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, ...) normalised over the rows of all processes."""
        if not self.training:
            return nn.functional.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        wide, dims, shape = features.float(), [0, *range(2, features.ndim)], (1, -1, *[1] * (features.ndim - 2))
        count = all_reduce_sum(torch.tensor(float(features.numel() // features.shape[1])))
        mean = all_reduce_sum(wide.sum(dims)) / count
        centred = wide - mean.view(shape)
        variance = all_reduce_sum(centred.square().sum(dims)) / count
        self._update_running_stats(mean.detach(), variance.detach() * count / (count - 1))
        normed = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(features.dtype)

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _ThenActivation(nn.Module):
    """A BatchNorm layer that, like timm's, is followed by a dropout and an activation of its own."""

    drop: nn.Module
    act: nn.Module

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, ...) normalised over the rows of all processes, and activated."""
        activated: Tensor = self.act(self.drop(super().forward(features)))
        return activated


class HostSyncBatchNormAct(_ThenActivation, HostSyncBatchNorm):
    """`HostSyncBatchNorm` with an activation."""


class DeviceSyncBatchNormAct(_ThenActivation, nn.SyncBatchNorm):
    """`nn.SyncBatchNorm` with an activation."""


HOST_LAYERS = (HostSyncBatchNorm, HostSyncBatchNormAct)
DEVICE_LAYERS = (nn.SyncBatchNorm, DeviceSyncBatchNormAct)


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes; the backward pass sums the gradients."""

    @staticmethod
    def forward(_ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def all_reduce_sum(value: Tensor) -> Tensor:
    """The sum over all processes, differentiable."""
    result: Tensor = _AllReduceSum.apply(value)
    return result
