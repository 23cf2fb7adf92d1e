from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pcam_model.core.errors import ConfigError
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training.lr_finder import LrFinderConfig, find_lr, suggest
from pcam_model.training.network import PatchNetwork
from pcam_model.training.optimizer import FROZEN


def test_the_search_leaves_network_and_random_state_as_they_were(
    tmp_path: Path, network: PatchNetwork, part: Callable[..., PatchLoader]
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    curve = find_lr(network, part(48), LrFinderConfig(steps=40), FROZEN, 8, 2, ("frozen", 1), tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert curve.suggestion == curve.suggestions["valley"]
    assert 1e-7 < curve.suggestion < 10


def test_the_same_place_gives_the_same_curve(
    tmp_path: Path, network: PatchNetwork, part: Callable[..., PatchLoader]
) -> None:
    curves = [find_lr(network, part(48), LrFinderConfig(steps=30), FROZEN, 8, 2, ("frozen", 1), tmp_path) for _ in "ab"]
    assert curves[0] == curves[1]


def curve(losses: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """The curve with the points around it that a suggestion drops."""
    whole = [9.0] * 10 + losses + [9.0] * 5
    return np.logspace(-7, 1, len(whole)), np.array(whole)


def test_valley_lies_two_thirds_along_from_the_edge_of_the_plateau_to_the_lowest_loss() -> None:
    lrs, losses = curve([5.0, 5.1, 5.0, 4.0, 3.5, 3.0, 2.0, 1.5, 1.0, 1.2, 1.4, 2.0])
    assert suggest(lrs, losses)["valley"] == lrs[10 + 2 + 2 * 6 // 3]


def test_valley_does_not_mind_a_long_and_almost_flat_start() -> None:
    fall = [2.5, 2.0, 1.5, 1.0, 2.0]
    short, long = curve([5.0] * 3 + fall), curve([5.0 - i * 1e-4 for i in range(60)] + fall)
    for (lrs, losses), flat in ((short, 3), (long, 60)):
        assert suggest(lrs, losses)["valley"] == lrs[10 + flat - 1 + 2 * 4 // 3]


def test_steep_is_the_largest_fall_and_minimum_a_tenth_of_the_best() -> None:
    lrs, losses = curve([5.0, 4.9, 4.8, 4.0, 2.0, 1.9, 1.8, 3.0])
    suggestions = suggest(lrs, losses)
    assert suggestions["steep"] == lrs[10 + 3]
    assert suggestions["minimum"] == pytest.approx(lrs[10 + 6] / 10)


def test_a_curve_that_ends_at_once_asks_for_a_rate() -> None:
    lrs, losses = curve([1.0, 2.0])
    with pytest.raises(ConfigError, match="frozen.lr"):
        suggest(lrs, losses, "frozen")


def test_a_network_that_gives_no_numbers_asks_for_a_rate(
    tmp_path: Path, network: PatchNetwork, part: Callable[..., PatchLoader]
) -> None:
    network.head[3].weight.data.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(ConfigError, match="set frozen.lr yourself"):
        find_lr(network, part(48), LrFinderConfig(steps=20), FROZEN, 8, 2, ("frozen", 1), tmp_path)
