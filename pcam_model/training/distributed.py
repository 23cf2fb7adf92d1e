"""Distributed training: rank, collectives and DDP of one process among those that share every batch."""

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
    """Rank and world size of this process; its collectives do nothing in a world of one."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, which writes all files."""
        return self.rank == 0

    def batch_slice(self, count: int) -> BatchSlice:
        """This process's rows of a batch of `count`."""
        return BatchSlice(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size, count)

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def max_over_ranks(self, value: int, device: torch.device) -> int:
        """The largest of the processes' values."""
        if self.world_size == 1:
            return value
        largest = torch.tensor(value, device=device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.world_size > 1:
            dist.barrier()

    def wrap(self, network: nn.Module) -> DistributedDataParallel:
        """The network in DistributedDataParallel, which averages gradients over all processes."""
        known = inspect.signature(DistributedDataParallel.__init__).parameters  # renamed in torch 2.15
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(network, **options)


SINGLE_PROCESS = DistContext()


def dist_context() -> DistContext:
    """Rank and world size of the initialised process group; a world of one without one."""
    return DistContext(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else SINGLE_PROCESS
