"""The largest batch that fits into memory, where the config leaves the batch to it."""

from pathlib import Path

import torch
from torch import Tensor

from pcam_model.core.errors import ConfigError
from pcam_model.core.schema import Record
from pcam_model.training.device import ComputeConfig, out_of_memory
from pcam_model.training.network import PatchNetwork
from pcam_model.training.stage import Stage
from pcam_model.training.step import new_state, train_step

MOST, SHARE = 1024, 8  # a batch is at most so large, and at most an 8th of the part
SPARE = 0.7  # of a machine's free memory that a step may take: it has no way to refuse more
CGROUP = Path("/sys/fs/cgroup")


class Batch(Record):
    """How many patches a step of a stage has, chosen for a device."""

    stage: str
    batch_size: int


def find_batch_size(stage: Stage, network: PatchNetwork, patches: int, size: int, compute: ComputeConfig) -> Batch:
    """The largest power of two whose step fits into the device's memory.

    At most 1,024, and at most an 8th of the training part, so that an epoch still has steps.

    Args:
        stage: what will be done.
        network: prepared for it; what it learns here is thrown away by the caller.
        patches: in the training part.
        size: the side that the network sees, in pixels.
        compute: in which numbers.

    Raises:
        ConfigError: not even two patches fit.
    """
    batch_size = 1 << (max(2, min(MOST, patches // SHARE)).bit_length() - 1)
    while batch_size >= 2 and not _fits(stage, network, batch_size, size, compute):
        batch_size //= 2
    if batch_size < 2:
        raise ConfigError(
            f"not even 2 patches of {size} pixels a side fit into memory; take a smaller model.image_size"
        )
    return Batch(stage=stage.name, batch_size=batch_size)


def _fits(stage: Stage, network: PatchNetwork, batch_size: int, size: int, compute: ComputeConfig) -> bool:
    device = next(network.parameters()).device
    if device.type != "cuda":
        return batch_size * bytes_a_patch(stage, network, size, compute) < SPARE * free_memory()
    try:
        _step(stage, network, batch_size, size, compute)
        return network.parts == 1
    except (RuntimeError, ConfigError) as error:
        if not (out_of_memory(error) or isinstance(error, ConfigError)):
            raise
        return False
    finally:
        network.set_microbatches(1)
        torch.cuda.empty_cache()


def bytes_a_patch(stage: Stage, network: PatchNetwork, size: int, compute: ComputeConfig) -> float:
    """What a step keeps for its way back, for each patch of its batch, and as much again for its gradients."""
    kept = dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = sum(parameter.nbytes for parameter in network.parameters())
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _step(stage, network, 4, size, compute)
    return 2 * max(sum(kept.values()) - own, 3 * size * size * 4) / 4


def _step(stage: Stage, network: PatchNetwork, batch_size: int, size: int, compute: ComputeConfig) -> None:
    device = next(network.parameters()).device
    images = torch.zeros(batch_size, 3, size, size, device=device)
    labels = torch.arange(batch_size, device=device) % 2
    train_step(new_state(network.train(), stage.multipliers, device, compute), images, labels, 0.0, 0.9, 0, 0, 0, 0)


def free_memory() -> float:
    """Bytes that this machine, or the container that we are in, has left."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = float(lines["MemAvailable"].split()[0]) * 1024
    limit = CGROUP / "memory.max"
    if limit.is_file() and (most := limit.read_text().strip()).isdigit():
        free = min(free, float(most) - float((CGROUP / "memory.current").read_text()))
    return free
