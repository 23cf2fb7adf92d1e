"""Whole batches from one uint8 array: gathered, augmented, resized and normalised at once, on the device."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pcam_model.core.rng import BatchSlice, generator
from pcam_model.data.augment import ViewConfig, augment
from pcam_model.data.mmap_reader import Streamed

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ORDER, AUGMENT = 1, 2  # what the randomness of a place is for


def normalise(patches: Tensor, size: int) -> Tensor:
    """Patches as the network wants them, without any augmentation.

    Args:
        patches: uint8 (B, H, W, 3), 0..255.
        size: the side that the network sees, in pixels; other patches are resampled bilinearly.

    Returns:
        float32 (B, 3, size, size), channels last in memory, ImageNet's mean and variance taken out.
    """
    images = patches.permute(0, 3, 1, 2).float()
    if images.shape[-1] != size:
        images = functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    return standardise(images / 255)


def standardise(images: Tensor) -> Tensor:
    """Float (B, 3, H, W) in 0..1 -> about zero mean and unit variance, by ImageNet's statistics."""
    mean, std = _statistics(images.device)
    return (images - mean) / std


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept on the device: bringing them there at each batch would make it wait."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


@dataclass(frozen=True)
class PatchLoader:
    """One part (train, valid or test) of a pack, ready to be read in batches.

    Attributes:
        patches: uint8 (N, 96, 96, 3): the whole pack, on the device or, where it does not fit, streamed from its file.
        rows: int64 (n,): which rows of the pack belong to this part, on the side of `patches`.
        labels: int64 (n,), on the device; -1 where unknown.
        size: the side that the network sees, in pixels.
        device: where batches go.
        ids: the n patches' names, for messages.
    """

    patches: Tensor | Streamed
    rows: Tensor
    labels: Tensor
    size: int
    device: torch.device
    ids: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> "PatchLoader":
        """The positions start .. stop alone."""
        return replace(self, rows=self.rows[start:stop], labels=self.labels[start:stop], ids=self.ids[start:stop])

    def gather(self, which: Tensor) -> Tensor:
        """uint8 (B, 96, 96, 3) on the device, for positions `which` in this part."""
        rows = self.rows[which.to(self.rows.device, non_blocking=True)]
        if isinstance(self.patches, Streamed):
            return self.patches.gather(rows)
        return self.patches.index_select(0, rows).to(self.device, non_blocking=True)

    def expect(self, which: Tensor) -> None:
        """Say what will be gathered next: what is streamed is read meanwhile."""
        if isinstance(self.patches, Streamed):
            self.patches.expect(self.rows[which])

    def order(self, seed: int, stage: int, epoch: int) -> Tensor:
        """int64 (n,): the order of this epoch, a function of the place alone."""
        return torch.randperm(len(self), generator=generator(seed, ORDER, stage, epoch))

    def augmented(
        self,
        which: Tensor,
        seed: int,
        *place: int,
        view_config: ViewConfig | None = None,
        share: BatchSlice | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Images float (B, 3, size, size) and labels int64 (B,) for training; `place` decides the augmentation.

        Of the positions `which`, or of a share of them: it is drawn for all of them. `sight` says how they are seen;
        without it, at this part's own size.
        """
        share = share or BatchSlice(0, len(which), len(which))
        which, draw = share.of(which), generator(seed, AUGMENT, *place)
        images = augment(self.gather(which), view_config or ViewConfig(self.size), draw, standardise, share)
        return images, self.labels[which.to(self.labels.device, non_blocking=True)]

    def plain(self, start: int, stop: int) -> Tensor:
        """Images float (B, 3, size, size) at positions start..stop, in this part's own order, not augmented."""
        return normalise(self.gather(torch.arange(start, min(stop, len(self)))), self.size)

    def in_order(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images and labels of this part, plain, `batch` at a time."""
        for start in range(0, len(self), batch):
            images = self.plain(start, start + batch)
            if start + batch < len(self):
                self.expect(torch.arange(start + batch, min(start + 2 * batch, len(self))))
            yield images, self.labels[start : start + batch]


def on_device(array: np.ndarray, device: torch.device) -> Tensor | Streamed:
    """The pack's array (N, 96, 96, 3) where the device reaches it: copied when it takes less than half the free memory.

    Else, and always on a CPU, it is streamed from its file, a batch ahead.
    """
    streamed = Streamed(array, device)
    if device.type != "cuda":
        return streamed
    free, _ = torch.cuda.mem_get_info(device)
    if array.nbytes < free // 2:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody here writes
            return torch.from_numpy(array).to(device)
    print(f"The pack ({array.nbytes / 1e9:.1f} GB) does not fit beside the network: it is streamed from the host.")
    return streamed


def batches(
    patches: Tensor | Streamed,
    rows: np.ndarray,
    labels: np.ndarray,
    size: int,
    device: torch.device,
    ids: Sequence[str] = (),
) -> PatchLoader:
    """The part of the pack that `rows` (n,) names; `labels` (n,) are 0 or 1, -1 where unknown; `ids` (n,) names."""
    side = torch.device("cpu") if isinstance(patches, Streamed) else patches.device
    return PatchLoader(
        patches=patches,
        rows=torch.tensor(np.asarray(rows, dtype=np.int64), device=side),
        labels=torch.tensor(np.asarray(labels, dtype=np.int64), device=device),
        size=size,
        device=device,
        ids=ids,
    )
