"""Whole batches from one uint8 array: gathered, augmented, resized and normalised at once, on the device."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pcam_model.core.log import log
from pcam_model.core.rng import BatchSlice, generator
from pcam_model.data.augment import AugmentParameters, ViewConfig, augment, draw_augmentation
from pcam_model.data.mmap_reader import MmapReader

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The first number of an RNG key: what the random numbers are for.
ORDER_KEY, AUGMENT_KEY = 1, 2


def normalise(patches: Tensor, image_size: int) -> Tensor:
    """Resize patches and normalise them with ImageNet's mean and std, without any augmentation.

    Args:
        patches: uint8 (B, H, W, 3), 0..255.
        image_size: the network's input size in pixels; patches of another size are resampled bilinearly.

    Returns:
        float32 (B, 3, image_size, image_size), channels last in memory.
    """
    images = patches.permute(0, 3, 1, 2).float()
    if images.shape[-1] != image_size:
        images = functional.interpolate(images, size=(image_size, image_size), mode="bilinear", align_corners=False)
    return standardise(images / 255)


def standardise(images: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its std: float (B, 3, H, W) in 0..1 -> the same shape."""
    mean, std = _imagenet_statistics(images.device)
    return (images - mean) / std


@cache
def _imagenet_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and std (3, 1, 1), kept on the device: a copy to it at each batch would make it wait."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


@dataclass(frozen=True)
class PatchLoader:
    """Batches of one split of a pack.

    Attributes:
        patches: uint8 (N, 96, 96, 3): the whole pack, on the device or, where it does not fit, read from its file.
        rows: int64 (n,): the split's rows of the pack, on the device of `patches`.
        labels: int64 (n,), on the device; -1 where unknown.
        image_size: the network's input size in pixels.
        device: where batches are put.
        ids: the n patches' ids, for messages.
    """

    patches: Tensor | MmapReader
    rows: Tensor
    labels: Tensor
    image_size: int
    device: torch.device
    ids: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> "PatchLoader":
        """A loader of the positions start .. stop."""
        return replace(self, rows=self.rows[start:stop], labels=self.labels[start:stop], ids=self.ids[start:stop])

    def gather(self, positions: Tensor) -> Tensor:
        """uint8 (B, 96, 96, 3) on the device, of int64 positions (B,) in this split."""
        rows = self.rows[positions.to(self.rows.device, non_blocking=True)]
        if isinstance(self.patches, MmapReader):
            return self.patches.gather(rows)
        return _select_rows(self.patches, rows).to(self.device, non_blocking=True)

    def augment(self, patches: Tensor, parameters: AugmentParameters, image_size: int) -> Tensor:
        """Augmented, normalised images float (B, 3, S, S) of patches uint8 (B, 96, 96, 3)."""
        return augment(patches, parameters, image_size, standardise)

    def prefetch(self, positions: Tensor) -> None:
        """Begin to read the batch that is gathered next, where patches are read from a file."""
        if isinstance(self.patches, MmapReader):
            self.patches.prefetch(self.rows[positions])

    def epoch_order(self, seed: int, stage: int, epoch: int) -> Tensor:
        """A random permutation int64 (n,) of the positions, a function of the arguments alone."""
        return torch.randperm(len(self), generator=generator(seed, ORDER_KEY, stage, epoch))

    def augmented_batch(
        self,
        positions: Tensor,
        seed: int,
        *rng_key: int,
        view_config: ViewConfig | None = None,
        batch_slice: BatchSlice | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Augmented images float (B, 3, S, S) and labels int64 (B,), a function of the arguments alone.

        Args:
            positions: int64, the whole batch's positions in this split.
            seed: the run's seed.
            rng_key: what the augmentation is drawn from beside the seed: stage, epoch and step.
            view_config: image size and augmentations; this loader's size and the default ones by default.
            batch_slice: compute this slice alone; random numbers are drawn for the whole batch all the same.
        """
        batch_slice = batch_slice or BatchSlice(0, len(positions), len(positions))
        positions, view_config = batch_slice.of(positions), view_config or ViewConfig(self.image_size)
        drawn = draw_augmentation(view_config, generator(seed, AUGMENT_KEY, *rng_key), batch_slice)
        parameters = AugmentParameters(*(values.to(self.device, non_blocking=True) for values in drawn))
        images = self.augment(self.gather(positions), parameters, view_config.image_size)
        return images, self.labels[positions.to(self.labels.device, non_blocking=True)]

    def without_augmentation(self, start: int, stop: int) -> Tensor:
        """Normalised images float (B, 3, S, S) of the positions start .. stop."""
        return normalise(self.gather(torch.arange(start, min(stop, len(self)))), self.image_size)

    def iterate(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of all positions in order, without augmentation; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            images = self.without_augmentation(start, stop)
            if stop < len(self):
                self.prefetch(torch.arange(stop, min(stop + batch_size, len(self))))
            yield images, self.labels[start:stop]


def _select_rows(patches: Tensor, rows: Tensor) -> Tensor:
    """`patches[rows]` of uint8 (N, H, W, 3), 8 bytes at a time where a patch's size allows it."""
    size = patches[0].numel() if len(patches) else 0
    if not size or size % 8 or not patches.is_contiguous():
        return patches.index_select(0, rows)
    words = patches.view(len(patches), size).view(torch.int64)
    return words.index_select(0, rows).view(torch.uint8).view(-1, *patches.shape[1:])


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that can be allocated: what is free, and what PyTorch keeps of freed tensors."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def on_device(array: np.ndarray, device: torch.device) -> Tensor | MmapReader:
    """The pack's array (N, 96, 96, 3) on a GPU where that takes less than half of its free memory, else a reader."""
    if device.type != "cuda":
        return MmapReader(array, device)
    free = free_memory(device)
    if array.nbytes < free // 2:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing here writes
            return torch.from_numpy(array).to(device)
    log.info(
        "The pack (%.1f GB) takes more than half of the GPU's free memory (%.1f GB): each batch is read from its file.",
        array.nbytes / 1e9,
        free / 1e9,
    )
    return MmapReader(array, device)


def make_loader(
    patches: Tensor | MmapReader,
    rows: np.ndarray,
    labels: np.ndarray,
    image_size: int,
    device: torch.device,
    ids: Sequence[str] = (),
) -> PatchLoader:
    """A loader of the pack's `rows` (n,) with `labels` (n,), 0 or 1, -1 where unknown, and `ids` (n,)."""
    rows_device = torch.device("cpu") if isinstance(patches, MmapReader) else patches.device
    return PatchLoader(
        patches=patches,
        rows=torch.tensor(np.asarray(rows, dtype=np.int64), device=rows_device),
        labels=torch.tensor(np.asarray(labels, dtype=np.int64), device=device),
        image_size=image_size,
        device=device,
        ids=ids,
    )
