"""Choice of the batch size by available memory, where `batch_size` is auto."""

import numpy as np
import torch
from torch import Tensor

from pcam_model.core.errors import DeviceMemoryError
from pcam_model.core.memory import available_memory
from pcam_model.core.rng import StepKey
from pcam_model.core.schema import Record
from pcam_model.core.stage_names import StageName
from pcam_model.data.augment import ViewConfig
from pcam_model.data.image import PATCH_SIZE
from pcam_model.data.patch_loader import make_loader
from pcam_model.training.batch import BatchSource, BatchSpec
from pcam_model.training.device import ComputeConfig, is_out_of_memory
from pcam_model.training.network import PatchNetwork
from pcam_model.training.stage import Stage
from pcam_model.training.step import train_step
from pcam_model.training.train_state import create_train_state

MAX_BATCH_SIZE = 1024
MIN_STEPS_PER_EPOCH = 8
MAX_MEMORY_FRACTION = 0.7  # of a CPU's available memory, which is not refused but killed for
PROBE_BATCH_SIZE = 4


class BatchSizeChoice(Record):
    """The batch size that was chosen for a stage."""

    stage: StageName
    batch_size: int


def find_batch_size(
    stage: Stage, network: PatchNetwork, patches: int, image_size: int, compute: ComputeConfig
) -> BatchSizeChoice:
    """The largest power of two whose step fits into the device's memory.

    At most 1,024, and at most an 8th of the training split, so that an epoch has several steps.

    Args:
        stage: the stage to train.
        network: prepared for the stage; changed by trial steps, so throw it away.
        patches: in the training split.
        image_size: in pixels.
        compute: precision.

    Raises:
        DeviceMemoryError: not even two patches fit.
    """
    batch_size = 1 << (max(2, min(MAX_BATCH_SIZE, patches // MIN_STEPS_PER_EPOCH)).bit_length() - 1)
    if next(network.parameters()).device.type == "cuda":
        while batch_size >= 2 and not _trial_succeeds(stage, network, batch_size, image_size, compute):
            batch_size //= 2
    else:
        limit = MAX_MEMORY_FRACTION * available_memory() / bytes_per_patch(stage, network, image_size, compute)
        while batch_size >= 2 and batch_size >= limit:
            batch_size //= 2
    if batch_size < 2:
        raise DeviceMemoryError(
            f"not even 2 patches of {image_size} x {image_size} pixels fit into memory; take a smaller model.image_size"
        )
    return BatchSizeChoice(stage=stage.name, batch_size=batch_size)


def bytes_per_patch(stage: Stage, network: PatchNetwork, image_size: int, compute: ComputeConfig) -> float:
    """Memory that a training step takes for each patch: what autograd saves, and as much again for gradients."""
    saved = dict[int, int]()

    def record_size(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    parameters = sum(parameter.nbytes for parameter in network.parameters())
    with torch.autograd.graph.saved_tensors_hooks(record_size, lambda tensor: tensor):
        _trial_step(stage, network, PROBE_BATCH_SIZE, image_size, compute)
    images = 3 * image_size * image_size * 4
    return 2 * max(sum(saved.values()) - parameters, images) / PROBE_BATCH_SIZE


def _trial_succeeds(
    stage: Stage, network: PatchNetwork, batch_size: int, image_size: int, compute: ComputeConfig
) -> bool:
    """Whether a step runs on the GPU, without microbatches."""
    try:
        _trial_step(stage, network, batch_size, image_size, compute)
        return network.microbatches == 1
    except DeviceMemoryError:
        return False
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        network.set_microbatches(1)
        torch.cuda.empty_cache()


def _trial_step(stage: Stage, network: PatchNetwork, batch_size: int, image_size: int, compute: ComputeConfig) -> None:
    device = next(network.parameters()).device
    patches = torch.zeros(batch_size, PATCH_SIZE, PATCH_SIZE, 3, dtype=torch.uint8, device=device)
    rows = np.arange(batch_size)
    loader = make_loader(patches, rows, rows % 2, image_size, device)
    state = create_train_state(network.train(), stage.lr_multipliers, device, compute)
    spec = BatchSpec.whole(torch.arange(batch_size), StepKey(0, 0, 0, 0), ViewConfig(image_size))
    train_step(state, BatchSource(loader, network).batch(spec), 0.0, 0.9)
