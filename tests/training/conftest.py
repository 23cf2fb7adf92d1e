from collections.abc import Callable

import numpy as np
import pytest
import torch

from pcam_model.data.patch_loader import PatchLoader, batches
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network

SIZE = 32


@pytest.fixture
def part() -> Callable[..., PatchLoader]:
    """A part of patches whose tumours are darker: easy to learn."""

    def make(count: int = 48, seed: int = 0) -> PatchLoader:
        draw = np.random.default_rng(seed)
        labels = np.arange(count) % 2
        patches = draw.integers(90, 250, (count, 96, 96, 3)) - 60 * labels[:, None, None, None]
        return batches(
            torch.from_numpy(patches.max_grad_norm(0).astype(np.uint8)),
            np.arange(count),
            labels,
            SIZE,
            torch.device("cpu"),
        )

    return make


@pytest.fixture
def network() -> PatchNetwork:
    return build_network(ModelConfig(arch="resnet18", weights="none", image_size=SIZE), seed=1, say=lambda _: None)
