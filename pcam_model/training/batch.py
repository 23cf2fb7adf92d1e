"""The batch of a training step: its random numbers drawn by a thread a step ahead, its images made on the device."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from pcam_model.core.rng import BatchSlice, StepKey
from pcam_model.data.augment import AugmentParameters, ViewConfig, draw_augmentation
from pcam_model.data.patch_loader import AUGMENT_KEY, PatchLoader
from pcam_model.training.layers import Dropout
from pcam_model.training.network import DROPOUT_RNG, PatchNetwork

ALIGNMENT = 16  # bytes, of each tensor in a packed buffer


@dataclass(frozen=True, eq=False)
class BatchSpec:
    """All that determines a batch and its random numbers.

    Attributes:
        positions: int64 (batch_size,) on the host: the whole batch's positions in the split.
        key: RNG key of the step.
        view_config: image size and augmentations.
        batch_slice: the rows that this process computes.
    """

    positions: Tensor
    key: StepKey
    view_config: ViewConfig
    batch_slice: BatchSlice

    @classmethod
    def whole(cls, positions: Tensor, key: StepKey, view_config: ViewConfig) -> "BatchSpec":
        """All rows of a batch."""
        return cls(positions, key, view_config, BatchSlice(0, len(positions), len(positions)))

    def is_same(self, other: "BatchSpec") -> bool:
        """Whether both are the same batch."""
        return (
            (self.key, self.view_config, self.batch_slice) == (other.key, other.view_config, other.batch_slice)
            and torch.equal(self.positions, other.positions)
        )  # fmt: skip


@dataclass(frozen=True)
class TrainBatch:
    """A step's rows of its batch; patches are read and images are made a microbatch at a time.

    Attributes:
        loader: of the split.
        positions: int64 (B,) on the host.
        device_positions: the same on the training device.
        parameters: of the augmentation, on the training device.
        keep_masks: bool (B, columns) of each dropout layer, on the training device.
        image_size: in pixels.
        batch_slice: which rows of the whole batch these are.
    """

    loader: PatchLoader
    positions: Tensor
    device_positions: Tensor
    parameters: AugmentParameters
    keep_masks: tuple[Tensor, ...]
    image_size: int
    batch_slice: BatchSlice

    def __len__(self) -> int:
        return len(self.positions)

    def patches(self) -> Tensor:
        """uint8 (B, 96, 96, 3) on the device."""
        is_resident = self.loader.rows.device == self.device_positions.device
        return self.loader.gather(self.device_positions if is_resident else self.positions)

    def images(self, patches: Tensor, rows: slice) -> Tensor:
        """Augmented, normalised images float (b, 3, S, S) of some rows of `patches()`."""
        return self.loader.augment(patches[rows], self.parameters.rows(rows), self.image_size)

    def labels(self, rows: slice) -> Tensor:
        """int64 (b,) of some rows, 0 or 1."""
        return self.loader.labels[self.device_positions[rows]]

    def masks(self, rows: slice) -> list[Tensor]:
        """Dropout masks of some rows."""
        return [mask[rows] for mask in self.keep_masks]


class BatchSource:
    """Makes batches of a split for a network; the next one's random numbers are drawn and sent while a step computes.

    They are drawn on the host whatever the device, so that they are the same on every device.
    """

    def __init__(self, loader: PatchLoader, network: PatchNetwork):
        self.loader, self.dropouts = loader, network.dropouts
        self.executor = ThreadPoolExecutor(1, "batches")
        self.prefetched: tuple[BatchSpec, Future[PackedTensors]] | None = None

    def prefetch(self, spec: BatchSpec) -> None:
        """Begin to draw the batch that is asked for next, and to read its patches where they are read from a file."""
        self.prefetched = spec, self._draw(spec)
        self.loader.prefetch(spec.batch_slice.of(spec.positions))

    def batch(self, spec: BatchSpec) -> TrainBatch:
        """The batch; without waiting for the device."""
        prefetched, self.prefetched = self.prefetched, None
        is_hit = prefetched is not None and prefetched[0].is_same(spec)
        drawn = prefetched[1] if prefetched and is_hit else self._draw(spec)
        positions, *values = drawn.result().to(self.loader.device)
        parameters, masks = AugmentParameters(*values[:4]), tuple(values[4:])
        host_positions, image_size = spec.batch_slice.of(spec.positions), spec.view_config.image_size
        return TrainBatch(self.loader, host_positions, positions, parameters, masks, image_size, spec.batch_slice)

    def close(self) -> None:
        """End the thread; `batch` and `prefetch` may not be called again."""
        self.executor.shutdown()

    def _draw(self, spec: BatchSpec) -> "Future[PackedTensors]":
        return self.executor.submit(draw, spec, self.dropouts, self.loader.device)


class PackedTensors:
    """Host tensors for a device: for a GPU packed into one pinned buffer, so that a single copy sends them all."""

    def __init__(self, tensors: Sequence[Tensor], device: torch.device):
        self.tensors, self.buffer = list(tensors), torch.empty(0, dtype=torch.uint8)
        if device.type == "cpu":
            return
        sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors]
        self.buffer = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        for tensor, part in zip(tensors, torch.split(self.buffer, sizes), strict=True):
            _view_as(part, tensor).copy_(tensor)
        self.sizes = sizes

    def to(self, device: torch.device) -> list[Tensor]:
        """The tensors on the device; the host does not wait for the copy."""
        if device.type == "cpu":
            return self.tensors
        parts = torch.split(self.buffer.to(device, non_blocking=True), self.sizes)
        return [_view_as(part, tensor) for part, tensor in zip(parts, self.tensors, strict=True)]


def draw(spec: BatchSpec, dropouts: list[Dropout], device: torch.device) -> PackedTensors:
    """Draw the random numbers of a batch on the host: positions, `AugmentParameters`, and each dropout layer's mask."""
    augmentation = draw_augmentation(spec.view_config, spec.key.generator(AUGMENT_KEY), spec.batch_slice)
    rng = spec.key.generator(DROPOUT_RNG)
    masks = [dropout.draw_mask(spec.batch_slice, rng) for dropout in dropouts]
    return PackedTensors([spec.batch_slice.of(spec.positions), *augmentation, *masks], device)


def set_masks(network: PatchNetwork, masks: Sequence[Tensor]) -> None:
    """Set the dropout masks of the next forward passes."""
    for dropout, mask in zip(network.dropouts, masks, strict=True):
        dropout.keep_mask = mask


def _view_as(part: Tensor, tensor: Tensor) -> Tensor:
    """A part of a packed buffer as a tensor of another's dtype and shape."""
    return part[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
