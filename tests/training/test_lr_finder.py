from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stages import small_loader

from pcam_model.core.errors import ConfigError
from pcam_model.training.lr_curve import (
    DEFAULT_LR,
    SIGNIFICANT,
    STABLE_FRACTION,
    exploded_at,
    fall_and_error,
    lr_at,
    read_curve,
    suggest,
)
from pcam_model.training.lr_finder import LrFinderConfig, LrFinderSetup, find_lr
from pcam_model.training.network import PatchNetwork
from pcam_model.training.stage import FrozenConfig, Stage

STAGE = Stage(name="frozen", config=FrozenConfig(epochs=1, batch_size=8))


def setup(folder: Path, steps: int) -> LrFinderSetup:
    """A range test of the frozen stage."""
    return LrFinderSetup(stage=STAGE, config=LrFinderConfig(steps=steps), seed=2, folder=folder)


def test_the_search_leaves_network_and_random_state_as_they_were(tmp_path: Path, network: PatchNetwork) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    curve = find_lr(network, small_loader(48), setup(tmp_path, 40))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    expected = curve.suggestions["valley"] if curve.informative else DEFAULT_LR["frozen"]
    assert curve.suggestion == min(expected, STABLE_FRACTION * curve.stable_lr)
    assert 1e-7 < curve.suggestion < 10


def test_the_same_place_gives_the_same_curve(tmp_path: Path, network: PatchNetwork) -> None:
    curves = [find_lr(network, small_loader(48), setup(tmp_path, 24)) for _ in "ab"]
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
    with pytest.raises(ConfigError, match=r"frozen\.lr"):
        suggest(lrs, losses, "frozen")


def test_a_network_that_gives_no_numbers_asks_for_a_rate(tmp_path: Path, network: PatchNetwork) -> None:
    network.head[3].weight.data.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(ConfigError, match=r"set frozen\.lr yourself"):
        find_lr(network, small_loader(48), setup(tmp_path, 20))


def read(gains: np.ndarray, evaluations: list[float] | None = None) -> Any:
    """The curve of a test whose untrained network loses 0.7 on each batch."""
    losses, starts = list(0.7 + gains), [0.7] * len(gains)
    return read_curve(losses, starts, evaluations or [], "finetune", "valley", len(gains), Path("lr.json"))


@pytest.mark.parametrize("seed", range(10))
def test_flat_noise_holds_no_information_and_the_default_is_suggested_aloud(seed: int) -> None:
    curve = read(np.random.default_rng(seed).normal(0, 0.2, 100))
    assert not curve.informative
    assert curve.method == "default"
    assert curve.suggestion == DEFAULT_LR["finetune"]
    assert "holds no information" in curve.reason


@pytest.mark.parametrize("scale", [np.ones(100), np.linspace(0, 1, 100), np.geomspace(1e-3, 1, 60)])
def test_fewer_than_one_noise_curve_in_a_hundred_passes_for_informative(scale: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    results = [fall_and_error(list(rng.normal(0, 0.2, len(scale)) * scale)) for _ in range(1000)]
    assert sum(fall > SIGNIFICANT * error for fall, error in results) < 10


@pytest.mark.parametrize("seed", range(10))
def test_a_fall_beyond_its_noise_is_informative(seed: int) -> None:
    fall = np.concatenate([np.zeros(50), np.linspace(0, -0.5, 30), np.linspace(-0.5, 2, 20)])
    curve = read(fall + np.random.default_rng(seed).normal(0, 0.1, 100))
    assert curve.informative
    assert curve.method == "valley"
    assert "valley suggests" in curve.reason
    assert curve.suggestion == curve.suggestions["valley"]
    assert lr_at(45, 100) < curve.suggestion < lr_at(85, 100)


def test_no_rate_is_suggested_at_which_evaluation_has_exploded() -> None:
    fall = np.concatenate([np.zeros(30), np.linspace(0, -0.6, 70)])  # in training it goes on falling
    evaluations = [0.7] * 25 + [50.0] * 25  # of every second step
    end = exploded_at(list(0.7 + fall), evaluations)
    assert end == 49
    curve = read(fall, evaluations)
    assert curve.stable_lr == lr_at(end - 1, 100)
    assert max(*curve.suggestions.values(), curve.suggestion) <= STABLE_FRACTION * curve.stable_lr


def test_the_default_too_keeps_away_from_where_evaluation_has_exploded() -> None:
    gains = np.random.default_rng(0).normal(0, 0.2, 100)
    curve = read(gains, [0.7] * 20 + [50.0] * 30)
    assert not curve.informative
    assert curve.suggestion == STABLE_FRACTION * curve.stable_lr < DEFAULT_LR["finetune"]


def test_evaluation_below_a_coins_loss_has_not_exploded() -> None:
    assert exploded_at([0.7] * 40, [0.1] * 8 + [0.6] * 12) is None
