import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pcam_model.core.rng import BatchSlice, generator
from pcam_model.data.augment import (
    AugmentParameters,
    ViewConfig,
    augment,
    draw_augmentation,
    homographies,
    lighting,
    relight,
    sampling_grid,
    symmetries,
    warps,
    zooms,
)
from pcam_model.data.patch_loader import IMAGENET_MEAN, IMAGENET_STD, PatchLoader, make_loader, normalise


def random_patches(count: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8))


def make_part(count: int = 12) -> PatchLoader:
    return make_loader(random_patches(count), np.arange(2, count), np.arange(count - 2) % 2, 48, torch.device("cpu"))


def test_images_without_augmentation_are_the_normalised_patches() -> None:
    patches = random_patches()
    images = normalise(patches, 96)
    expected = (patches.double() / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    assert images.shape == (5, 3, 96, 96)
    assert torch.allclose(images.permute(0, 2, 3, 1).double(), expected, atol=1e-5)


def test_a_resize_is_a_plain_bilinear_upsample() -> None:
    images = normalise(random_patches(2), 192)
    flat = normalise(torch.full((1, 96, 96, 3), 128, dtype=torch.uint8), 224)
    assert images.shape == (2, 3, 192, 192)
    assert flat.std((2, 3)).max() < 1e-5


def test_all_eight_symmetries_come_and_move_pixels_exactly() -> None:
    patches = random_patches(1).float().permute(0, 3, 1, 2)
    expected = {torch.rot90(flip, k, (2, 3)).numpy().tobytes() for flip in (patches, patches.flip(3)) for k in range(4)}
    maps = symmetries(200, generator(1))
    produced = {
        torch.nn.functional.grid_sample(
            patches, sampling_grid(m[None], 96), padding_mode="reflection", align_corners=False
        )
        .round()
        .numpy()
        .tobytes()
        for m in maps.unique(dim=0)
    }
    assert produced == expected


def test_a_zoom_stays_inside_the_patch_and_a_warp_keeps_its_sides_in_reach() -> None:
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)]).T
    assert ((zooms(500, generator(1)) @ corners).abs() <= 1 + 1e-5).all()
    coordinates = warps(500, generator(2)) @ corners
    coordinates = coordinates[:, :2] / coordinates[:, 2:]
    assert 1.15 < coordinates.abs().max() <= 1.2**2 + 1e-5


def test_a_quarter_of_the_images_keep_brightness_and_contrast() -> None:
    brightness, contrast = lighting(8000, generator(3))
    assert (brightness == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    assert (contrast == 1).float().mean() == pytest.approx(0.25, abs=0.02)
    assert contrast.min() >= 0.8 - 1e-6
    assert contrast.max() <= 1.25 + 1e-6
    assert torch.sigmoid(brightness).min() >= 0.4
    assert torch.sigmoid(brightness).max() <= 0.6


def test_brightness_0_and_contrast_1_change_nothing() -> None:
    images = torch.rand(2, 3, 8, 8) * 0.9 + 0.05
    assert torch.allclose(relight(images, torch.zeros(2), torch.ones(2)), images, atol=1e-5)


def test_augmentation_depends_on_its_key_alone() -> None:
    loader, positions = make_part(), torch.tensor([3, 1, 4])
    first = loader.augmented_batch(positions, 2, 1, 0, 7)[0]
    torch.manual_seed(99)
    assert torch.equal(first, loader.augmented_batch(positions, 2, 1, 0, 7)[0])
    assert not torch.equal(first, loader.augmented_batch(positions, 2, 1, 0, 8)[0])
    assert first.shape == (3, 3, 48, 48)


def drawn(view_config: ViewConfig, count: int, seed: int) -> AugmentParameters:
    return draw_augmentation(view_config, generator(seed), BatchSlice(0, count, count))


def test_augmented_images_stay_in_range_and_differ_in_each_row() -> None:
    images = augment(random_patches(1).expand(6, -1, -1, -1), drawn(ViewConfig(96), 6, 4), 96)
    assert images.min() >= 0
    assert images.max() <= 1
    assert len({image.numpy().tobytes() for image in images}) == 6
    assert homographies(6, generator(4)).shape == (6, 3, 3)


def test_images_without_warp_are_flipped_and_relit_but_not_resampled() -> None:
    patches, rng = random_patches(6), generator(5)
    coordinates = sampling_grid(symmetries(6, rng), 96)
    images = patches.permute(0, 3, 1, 2).float() / 255
    turned = torch.nn.functional.grid_sample(images, coordinates, mode="nearest", align_corners=False)
    expected = relight(turned, *lighting(6, rng))
    assert torch.allclose(augment(patches, drawn(ViewConfig(96, no_warp=True), 6, 5), 96), expected, atol=1e-3)
    assert not torch.allclose(augment(patches, drawn(ViewConfig(96), 6, 5), 96), expected, atol=0.1)


def test_an_order_is_a_permutation_that_changes_with_the_epoch() -> None:
    loader = make_part()
    orders = [loader.epoch_order(2, 1, epoch) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(10)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert torch.equal(orders[1], loader.epoch_order(2, 1, 1))


def test_batches_come_from_the_rows_of_their_split() -> None:
    loader = make_part()
    assert torch.equal(loader.gather(torch.tensor([0, 9])), loader.patches[[2, 11]])
    batches = [(images.shape[0], labels.tolist()) for images, labels in loader.iterate(4)]
    assert batches == [(4, [0, 1, 0, 1]), (4, [0, 1, 0, 1]), (2, [0, 1])]


READ_AHEAD = """
import numpy as np, torch
from pathlib import Path
from pcam_model.data.mmap_reader import MmapReader

def threads():
    return len(list(Path("/proc/self/task").iterdir()))

torch.set_num_threads(2)
torch.rand(512, 512) @ torch.rand(512, 512)
torch.rand(1 << 20).sqrt()
before, patches = threads(), MmapReader(np.zeros((512, 96, 96, 3), np.uint8), torch.device("cpu"))
for start in range(0, 512, 128):
    rows = torch.arange(start, start + 128)
    patches.prefetch(rows)
    patches.gather(rows)
print(threads() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts its threads as Linux shows them")
def test_reading_ahead_takes_one_thread_and_starts_no_others() -> None:
    done = subprocess.run([sys.executable, "-c", READ_AHEAD], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
