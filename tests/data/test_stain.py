import pytest
import torch

from pcam_model.core.rng import BatchSlice, generator
from pcam_model.data.augment import ViewConfig, augment, draw_augmentation
from pcam_model.data.stain import SHIFT, draw_changes, draw_stain_maps, restain, stain_amounts, stain_maps

LOG_1E6 = 13.815510557964274  # scikit-image gives amounts in units of -ln(1e-6)
# skimage.color.rgb2hed of single pixels, scikit-image 0.26.0
KNOWN = {
    (100, 60, 140): (0.09421926, 0.02971407, 0.01642294),
    (230, 160, 200): (0.00121805, 0.02230789, 0.01894606),
    (200, 80, 150): (0.004376, 0.05904149, 0.03928789),
    (240, 235, 242): (0.00557152, 0.00046718, 0.00271838),
    (80, 50, 90): (0.10443248, 0.01304919, 0.05597707),
}


def random_patches(count: int = 4, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), generator=generator(1)).byte()


@pytest.mark.parametrize(("pixel", "expected"), KNOWN.items(), ids=str)
def test_amounts_are_those_of_scikit_image(pixel: tuple[int, int, int], expected: tuple[float, float, float]) -> None:
    computed = stain_amounts(torch.tensor(pixel, dtype=torch.uint8).view(1, 1, 1, 3)).flatten() / LOG_1E6
    assert computed.tolist() == pytest.approx(expected, abs=1e-6)


def test_stains_unmixed_and_mixed_again_are_the_same_patches() -> None:
    assert torch.equal(restain(random_patches(), stain_maps(torch.ones(4, 3), torch.zeros(4, 3))), random_patches())


def test_a_factor_and_a_shift_change_the_amount_of_one_stain_alone() -> None:
    patches = torch.full((1, 2, 2, 3), 127, dtype=torch.uint8)
    factors, shifts = torch.tensor([[1.2, 1.0, 1.0]]), torch.tensor([[0.05, 0.0, 0.0]])
    before, after = stain_amounts(patches), stain_amounts(restain(patches, stain_maps(factors, shifts)))
    assert torch.allclose(after[..., 0], before[..., 0] * 1.2 + 0.05, atol=0.01)  # a level of 255 is about 0.01
    assert torch.allclose(after[..., 1:], before[..., 1:], atol=0.01)


def test_changes_are_within_the_strength_and_reach_it() -> None:
    factors, shifts = draw_changes(5000, 0.2, generator(2))
    assert factors.min() >= 0.8
    assert factors.max() <= 1.2
    assert factors.std() == pytest.approx(0.4 / 12**0.5, rel=0.05)
    assert shifts.abs().max() <= 0.2 * SHIFT
    assert shifts.std() == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert not torch.equal(factors - 1, shifts / SHIFT)


def test_jitter_differs_by_row_and_depends_on_the_generator_alone() -> None:
    patches = torch.cat([random_patches(1).expand(6, -1, -1, -1), torch.full((1, 16, 16, 3), 0).byte()])
    jittered, again, other = (
        restain(patches, draw_stain_maps(0.5, generator(seed), BatchSlice(0, 7, 7))) for seed in (3, 3, 4)
    )
    assert jittered.dtype == torch.uint8
    assert jittered.shape == patches.shape
    assert len({patch.numpy().tobytes() for patch in jittered}) == 7
    assert torch.equal(jittered, again)
    assert not torch.equal(jittered, other)


def test_stain_jitter_does_not_change_the_other_augmentations() -> None:
    patches = random_patches(4, 96)
    plain, stained, strong = (
        augment(patches, draw_augmentation(ViewConfig(32, True, stain), generator(5), BatchSlice(0, 4, 4)), 32)
        for stain in (0.0, 1e-7, 0.2)
    )
    assert torch.equal(plain, stained)
    assert (strong - plain).abs().max() > 0.01
